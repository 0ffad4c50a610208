"""Searching an index through its front door: real networks, tiny and untrained, and real files."""

import io
import resource
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from irgen.catalog.images.pixels import decode_images
from irgen.checkpoints.models import Models
from irgen.errors import ImageError, IndexingError
from irgen.index import filters, networks
from irgen.index.hits import ImageHits
from irgen.index.index import Index
from irgen.search import calibration, engine
from irgen.search.calibration import Bin, Calibration, Uncalibrated
from irgen.search.engine import COPY_COSINE, QueryFeatures

from ..small_index import RANKING

KNOWN = Calibration(
    cosines=(0.0, 1.0),
    probabilities=(0.1, 0.9),
    queries=9,
    pairs=90,
    error=0.05,
    reliability=(Bin(predicted=0.5, observed=0.45, pairs=90),),
)
NAMES = [f"{number:03d}.png" for number in range(40)]
METADATA = pl.DataFrame({"label": [f"label {n % 4}" for n in range(40)], "price": list(range(40))})


@pytest.fixture
def make(make_index, png, tmp_path):
    """Return an index of some of NAMES, image i being ``png(i)``; every second one is marked as
    trained on."""

    def build(name: str, numbers: list[int], calibrated: bool = True) -> Path:
        items = pl.DataFrame({"id": [NAMES[n] for n in numbers]}).hstack(METADATA[numbers])
        contents = [png(number) for number in numbers]
        return make_index(tmp_path / name, contents, items, KNOWN if calibrated else None)

    return build


@pytest.fixture
def index(make):
    with Index.open(make("index", list(range(40))), writable=True, precision="fp32") as opened:
        yield opened


def search(index: Index, images, k: int = 10, **changes):
    """Search with some options changed."""
    return index.search(images, k, replace(index.options(k), **changes))


def search_ids(index: Index, ids, k: int = 10, **changes):
    """Search by ids with some options changed."""
    return index.search_ids(ids, k, replace(index.options(k + 1), **changes))


def same(one, other) -> None:
    assert one.ids.tolist() == other.ids.tolist()
    for name in ("scores", "cosine", "log_probability", "probability", "same_label"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4)


def test_an_image_of_the_index_finds_itself_first(index, png):
    hits = index.search([png(3), png(30)], k=5)
    assert hits.ids[:, 0].tolist() == [NAMES[3], NAMES[30]]
    assert (hits.cosine[:, 0] > 0.999).all() and (hits.cosine <= 1).all()
    assert (np.diff(hits.scores) <= 0).all()
    expected = calibration.apply(KNOWN, torch.from_numpy(hits.cosine)).numpy()
    assert np.array_equal(hits.same_label, expected)


def test_an_image_may_come_in_any_form(index, tiny_models, png, tmp_path):
    path = tmp_path / "query.png"
    path.write_bytes(png(50))
    pixels = decode_images([png(50)], tiny_models.decoding)
    hits = index.search([png(50)])
    same(hits, index.search([path]))
    same(hits, index.search([str(path)]))
    same(hits, index.search([Image.open(io.BytesIO(png(50)))]))
    same(hits, index.search(pixels))
    same(hits, index.search(torch.from_numpy(pixels)))
    same(hits, index.search(tiny_models.encode(torch.from_numpy(pixels))))


def test_many_queries_are_searched_in_batches_and_none_in_none(index, png):
    queries = [png(number) for number in range(40, 140)]
    hits = index.search(queries, k=3)
    assert hits.ids.shape == (100, 3)
    same(hits, type(hits).join([index.search([query], k=3) for query in queries], 3, index.view))
    assert index.search([], k=3).ids.shape == index.search_ids([], k=3).ids.shape == (0, 3)


def test_as_many_as_are_asked_for_are_found_however_few_beams_are_usual(make_index, png, tmp_path):
    items = pl.DataFrame({"id": NAMES}).hstack(METADATA)
    few = {"beams": 2, "candidates": 3, "fresh_beams": 0}
    folder = make_index(tmp_path / "few", [png(n) for n in range(40)], items, None, search=few)
    with Index.open(folder) as index:
        for k, allow in ((3, None), (12, None), (10, pl.col("label") == "label 1"), (40, None)):
            hits = [search(index, [png(60)], k, allow=allow)]
            hits.append(search_ids(index, [NAMES[0]], min(k, 39), allow=allow))
            assert [None in each.ids[0] for each in hits] == [False, False]
        assert None in search(index, [png(60)], 40, beams=2).ids[0]


def test_a_filter_finds_what_an_index_of_the_allowed_alone_would(index, make, png):
    numbers = [n for n in range(40) if n % 4 == 1 and n > 5]
    wanted = (pl.col("label") == "label 1") & (pl.col("price") > 5)
    with Index.open(make("alone", numbers), precision="fp32") as alone:
        expected = alone.search([png(60), png(61)], k=12)
    sql = "label = 'label 1' AND price > 5"
    for allow in (wanted, sql, [NAMES[n] for n in numbers], {NAMES[n] for n in numbers}):
        same(search(index, [png(60), png(61)], k=12, allow=allow), expected)
    assert (expected.ids != None).sum(1).tolist() == [len(numbers)] * 2  # noqa: E711


def test_a_filter_sees_the_images_alive_and_no_others(index, png):
    dearest = pl.col("price") == pl.col("price").max()
    assert search(index, [png(60)], k=3, allow=dearest).ids[0].tolist() == [NAMES[39], None, None]
    index.remove([NAMES[39]])
    assert search(index, [png(60)], k=3, allow=dearest).ids[0, 0] == NAMES[38]
    index.add([png(39)], ["later"], pl.DataFrame({"price": [99]}))
    assert search(index, [png(60)], k=3, allow=dearest).ids[0, 0] == "later"
    assert search(index, [png(60)], k=1, allow=["nobody"]).ids.tolist() == [[None]]
    assert search(index, [png(60)], k=1, allow=[]).ids.tolist() == [[None]]


@pytest.mark.parametrize(
    ("allow", "says"),
    [
        (pl.col("colour") == "red", "label, price"),
        (pl.col("price") + 1, "true or false"),
        (pl.col("price").max() > 3, "true or false for each"),
        ("000.png", "sql parser error"),
        ("'000.png'", "true or false for each"),
    ],
)
def test_a_filter_that_is_none_is_refused(index, png, allow, says):
    with pytest.raises(IndexingError, match=says):
        search(index, [png(1)], allow=allow)


def test_an_honest_empty_answer(index, png):
    everything = index.search([png(70)], k=40)
    least = float(everything.same_label[0, 4:6].mean())
    hits = search(index, [png(70)], k=40, min_probability=least)
    kept = (everything.same_label[0] >= least).sum()
    assert hits.ids[0].tolist() == everything.ids[0, :kept].tolist() + [None] * (40 - kept)
    none = search(index, [png(70)], k=3, min_probability=0.95)
    assert none.ids.tolist() == [[None] * 3]
    assert (none.scores == -np.inf).all() and (none.same_label == -np.inf).all()
    assert none.table().is_empty()


def test_without_a_calibration_nobody_is_told_a_probability(make, png):
    with Index.open(make("plain", list(range(9)), calibrated=False)) as plain:
        assert (plain.search([png(1)]).same_label == -np.inf).all()
        with pytest.raises(IndexingError, match="calibrat"):
            search(plain, [png(1)], min_probability=0.5)


@pytest.mark.parametrize(
    "settings",
    [
        {"k": 0},
        {"beams": 0},
        {"candidates": 0},
        {"fresh_beams": -1},
        {"distinct": 2.0},
        {"min_probability": 1.5},
    ],
)
def test_settings_that_make_no_sense_are_refused(index, png, settings):
    with pytest.raises(IndexingError, match=next(iter(settings))):
        search(index, [png(1)], **settings)


def test_an_image_that_cannot_be_read_is_named(index, png):
    with pytest.raises(ImageError, match="image 1"):
        index.search([png(1), png(2)[:40]])


def test_more_like_this_needs_no_file_and_no_network(index, monkeypatch):
    monkeypatch.delattr(networks, "load_models")
    hits = index.search_ids([NAMES[7], NAMES[8]], k=39)
    for row, own in enumerate((NAMES[7], NAMES[8])):
        assert sorted(hits.ids[row].tolist()) == sorted(set(NAMES) - {own})
    assert hits.by_embedding.all()
    labels = search_ids(index, [NAMES[7]], k=39, allow=pl.col("label") == "label 0")
    assert (labels.ids != None).sum() == 10  # noqa: E711
    with pytest.raises(IndexingError, match="not in the index: 'nobody'"):
        index.search_ids([NAMES[7], "nobody"])


def test_explanations_add_up_to_the_scores(index, png):
    hits = search(index, [png(80)], k=10, rerank=False)
    index.add([png(80)], ["twin"])
    explanations = index.explain(png(80), [*hits.ids[0], "twin"])
    *of_hits, of_twin = explanations
    log_probabilities = [explanation.log_probability for explanation in of_hits]
    np.testing.assert_allclose(log_probabilities, hits.log_probability[0], atol=1e-4)
    cosines = [explanation.cosine for explanation in of_hits]
    np.testing.assert_allclose(cosines, hits.cosine[0], atol=1e-4)
    frame = index.view.table
    assert [explanation.trained for explanation in of_hits] == [
        NAMES.index(name) % 2 == 0 for name in hits.ids[0]
    ]
    assert of_twin.cosine > 0.999 and not of_twin.trained
    codes = [
        tuple(code)
        for code in index.view.snapshot.gather(torch.arange(frame.height), "codes").tolist()
    ]
    assert all(
        explanation.images_with_code == codes.count(explanation.code)
        for explanation in explanations
    )


def test_what_is_added_is_found_by_the_next_search_here_and_elsewhere(index, png):
    def cosine(each: Index, number: int) -> float:
        """Return the cosine of image "new" and image ``number``; −inf if "new" is no hit."""
        hits = each.search([png(number)], k=41)
        return float(hits.cosine[hits.ids == "new"].max(initial=-np.inf))

    with Index.open(index.info()["folder"], precision="fp32") as reader:
        assert cosine(reader, 90) == -np.inf
        index.add([png(90)], ["new"], pl.DataFrame({"label": ["label 9"]}))
        assert [cosine(each, 90) > 0.999 for each in (index, reader)] == [True, True]
        before = cosine(reader, 91)
        index.upsert([png(91)], ["new"])
        assert [cosine(each, 91) > max(before, 0.999) for each in (index, reader)] == [True, True]
        index.remove(["new"])
        for each in (index, reader):
            assert "new" not in each.search([png(91)], k=41).ids[0]
        before = reader.search([png(91)], k=41)
        index.compact()
        same(reader.search([png(91)], k=41), before)


def test_a_search_never_sees_half_a_change(index, png):
    """A writer replaces five images again and again; whoever looks sees them all of one version."""
    group, stop, seen = [f"group {n}" for n in range(5)], Event(), set()
    embeddings = index.view.snapshot.gather(torch.arange(5), "embeddings").float()

    def write() -> None:
        version = 0
        while not stop.is_set():
            metadata = pl.DataFrame({"label": ["group"] * 5, "price": [version] * 5})
            index.upsert_encoded(embeddings, group, metadata)
            version += 1
            if version % 20 == 0:
                index.compact()

    index.upsert_encoded(
        embeddings, group, pl.DataFrame({"label": ["group"] * 5, "price": [0] * 5})
    )
    writer = Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            view = index.view
            snapshot = index.snapshot(view, pl.col("label") == "group")
            hits = engine.search_embeddings(embeddings[:2], snapshot, 9, index.options(1))
            result = ImageHits.of(hits, view, hits.scores)
            rows = view.find_existing([name for name in result.ids[0] if name])
            prices = view.take(rows)["price"].unique().to_list()
            assert sorted(result.ids[0, :5]) == group and result.ids[0, 5] is None
            assert len(prices) == 1
            seen.add(prices[0])
    finally:
        stop.set()
        writer.join()
    assert len(seen) > 1


def test_an_index_without_a_ranking_sorts_by_cosine(index, png):
    assert isinstance(index.ranking, Uncalibrated)
    hits = index.search([png(3)], k=40)
    np.testing.assert_array_equal(hits.scores, hits.cosine)


def test_an_index_with_a_ranking_sorts_by_the_probability_of_the_label(make_index, png, tmp_path):
    items = pl.DataFrame({"id": NAMES}).hstack(METADATA)
    contents = [png(number) for number in range(40)]
    folder = make_index(tmp_path / "ranked", contents, items, KNOWN, ranking=RANKING)
    with Index.open(folder, precision="fp32") as index:
        assert len(index.models.labels) == 1, "it was taught one label, and no image is of it"
        hits = index.search([png(3), png(50)], k=40)
        least = float(hits.scores[1, 5])
        likely = search(index, [png(50)], 40, min_probability=least)
        stored = index.search_ids(["003.png"], 5)
    assert (hits.same_label == hits.scores).all() and hits.scores[0, 0] == 1
    assert (np.diff(hits.scores[1]) <= 0).all() and (hits.scores <= 1).all()
    assert (likely.scores[0][likely.ids[0] != None] >= least).all()  # noqa: E711
    np.testing.assert_array_equal(stored.scores, stored.cosine)
    assert (hits.untaught > 0.5).all() and hits.list_untaught() == hits.untaught.tolist()
    assert stored.list_untaught() == [None]


def test_a_copy_of_a_labelled_image_is_followed_by_images_of_its_label(make_index, png, tmp_path):
    labels = [None if n == 7 else f"label {n % 4}" for n in range(40)]
    items = pl.DataFrame({"id": NAMES, "label": labels})
    contents = [png(number) for number in range(40)]
    folder = make_index(tmp_path / "ranked", contents, items, KNOWN, ranking=RANKING)
    with Index.open(folder, precision="fp32") as index:
        hits = index.search([png(3), png(6)], 40)
        measured = index.search([png(3), png(6)], 40, index.options(40))
        unlabelled = ~index.ranker(index.view, labelled=True).labelled
        assert index.view.ids(unlabelled.nonzero()[:, 0].numpy()) == ["007.png"]
    label_of = dict(items.rows())
    for query in (0, 1):
        copies = hits.cosine[query] >= COPY_COSINE
        own = {label_of[name] for name in hits.ids[query][copies]}
        expected = [label_of[name] in own for name in hits.ids[query]]
        assert (hits.scores[query] > 0.1).tolist() == expected
        assert expected == sorted(expected, reverse=True) and not all(expected)
        assert not np.array_equal(hits.ids[query], measured.ids[query])


def test_labels_are_numbered_once_for_all_searches_between_two_changes(make_index, png, tmp_path):
    items = pl.DataFrame({"id": NAMES[:5]}).hstack(METADATA[:5])
    contents = [png(number) for number in range(5)]
    folder = make_index(tmp_path / "ranked", contents, items, KNOWN, ranking=RANKING)
    with Index.open(folder, writable=True, precision="fp32") as index:
        kinds = index.ranker(index.view).kinds
        assert index.ranker(index.view).kinds is kinds
        index.add([png(50)], ["new"], pl.DataFrame({"label": ["label 0"]}))
        assert index.ranker(index.view).kinds.tolist() == [*kinds.tolist(), int(kinds[0])]
        index.remove(["new"])
        index.compact()
        assert torch.equal(index.ranker(index.view).kinds, kinds)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("is_fast", [True, False])
def test_images_are_encoded_in_the_precision_of_the_index_and_queries_where_it_is_fast(
    make_index, tiny_models, png, tmp_path, monkeypatch, precision, is_fast
):
    is_bf16, contents = precision == "bf16", [png(n) for n in range(5)]
    items, search = pl.DataFrame({"id": NAMES[:5]}), {"beams": 8}
    folder = make_index(
        tmp_path / "index", contents, items, None, search=search, encoder_precision=precision
    )
    pixels = torch.from_numpy(decode_images(contents, tiny_models.decoding))
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        expected = tiny_models.embed(pixels).half()
    assert torch.equal(expected, tiny_models.embed(pixels).half()) == (not is_bf16)
    with Index.open(folder, writable=True) as index:
        index.add(contents, [f"{name} again" for name in NAMES[:5]])
        added = index.view.snapshot.segments[1]
        assert torch.equal(added.embeddings, expected)
        autocasts, encode = [], Models.encode

        def spy(models: Models, pixels: torch.Tensor) -> QueryFeatures:
            autocasts.append(torch.is_autocast_enabled("cpu"))
            return encode(models, pixels)

        monkeypatch.setattr(Models, "encode", spy)
        monkeypatch.setattr("irgen.index.networks.has_fast_bf16", lambda device: is_fast)
        index.search(contents, 1)
    assert autocasts == [is_bf16 and is_fast]


def test_k_far_above_the_number_of_images_costs_no_memory(index, png):
    images = [png(number) for number in range(3)]
    index.search(images, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for hits in (
        index.search(images, engine.MOST_HITS),
        index.search_ids(NAMES[:3], engine.MOST_HITS),
        index.search_brute_force(images, engine.MOST_HITS),
    ):
        assert hits.ids.shape == (3, engine.MOST_HITS)
        assert (hits.ids[:, len(NAMES) :] == None).all()  # noqa: E711
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("price > AVG(price) OVER ()", 20),
        ("price = MAX(price) OVER ()", 1),
        ("(price - price) / NULLIF(price - price, 0) > 1", 0),
        ("price > 5 AND (price - price) / (price - price) > 1", 34),  # as the docs say
    ],
)
def test_a_filter_may_compute(index, text, count):
    assert int(filters.allowed_rows(text, index.view).sum()) == count
