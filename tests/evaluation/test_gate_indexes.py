"""The gate asks real small indexes the same queries."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from irgen import params as parameters
from irgen.catalog import manifest
from irgen.catalog.images.pixels import decode_images
from irgen.catalog.shards import ShardWriter
from irgen.catalog.table import write_table
from irgen.checkpoints.models import save_models
from irgen.errors import ArtifactError, IndexingError
from irgen.evaluation import answer_cache, gate, runs
from irgen.evaluation.query_set import RankedLists
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.params import Gate

from ..tiny import ENCODER, picture, untrained

LABELS = 4
PER_LABEL = 8


def rows(role: str, numbers: range) -> list[tuple[str, int, bytes]]:
    return [
        (f"{role}-{label}-{number}", label, picture(label, number))
        for label in range(LABELS)
        for number in numbers
    ]


DATABASE, QUERIES = rows("image", range(PER_LABEL)), rows("query", range(100, 103))


def table(entries: list[tuple[str, int, bytes]], role: str) -> pl.DataFrame:
    side = pl.lit(24, pl.Int32)
    return pl.DataFrame(
        {
            "id": [name for name, _, _ in entries],
            "path": [name for name, _, _ in entries],
            "label": [f"label {label}" for _, label, _ in entries],
            "role": [role] * len(entries),
            "sha256": [hashlib.sha256(content).hexdigest() for _, _, content in entries],
        }
    ).with_columns(width=side, height=side)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """Downloaded images and a catalogue, and no index yet."""
    workspace = Workspace.at(tmp_path)
    folder, listed = workspace.stage("download"), []
    with ShardWriter(folder, 1) as writer:
        for name, _, content in [*DATABASE, *QUERIES]:
            shard, offset = writer.add(name, content)
            sha256 = hashlib.sha256(content).hexdigest()
            row = {"key": name, "size": len(content), "etag": "", "sha256": sha256, "revision": 1}
            listed.append(row | {"shard": shard, "offset": offset, "version": None})
    columns = pl.DataFrame(listed, schema_overrides=manifest.SCHEMA)
    manifest.write(folder, columns, revision=1, source="test")
    write_catalog(workspace, table(DATABASE, "train"), table(QUERIES, "query"))
    return workspace


def write_catalog(workspace: Workspace, database: pl.DataFrame, queries: pl.DataFrame) -> None:
    write_table(workspace.stage("catalog") / "database.parquet", database.sort("id"))
    write_table(workspace.stage("catalog") / "queries.parquet", queries.sort("id"))


@pytest.fixture
def make(workspace, tokenizer_settings, retriever_settings):
    """Make an index of database images; ``wrong`` of them get another image's embedding."""

    def build(
        folder: Path,
        entries: list[tuple[str, int, bytes]] = DATABASE,
        *,
        wrong: int = 0,
        size: int = 32,
        levels: int = 3,
    ) -> Path:
        encoder = replace(ENCODER, image_size=size)
        tokens = replace(tokenizer_settings, levels=levels)
        retriever = replace(retriever_settings, dropout=0.0)
        models = untrained(encoder, tokens, retriever)
        pixels = decode_images([content for _, _, content in entries], models.decoding)
        embeddings = models.embed(torch.from_numpy(pixels)).clone()
        embeddings[:wrong] = embeddings[:wrong].roll(PER_LABEL, 0)
        Index.create(
            folder,
            models_writer=lambda folder: save_models(folder, models, encoder, tokens, retriever),
            config={"search": {"beams": 600, "candidates": 60, "fresh_beams": 0}},
            items=table(entries, "train").drop("role"),
            codebooks=models.tokenizer.codebooks,
            codes=models.tokenize(embeddings),
            embeddings=embeddings,
            trained=torch.ones(len(entries), dtype=torch.bool),
        )
        return folder

    return build


@pytest.fixture
def params(root):
    params = parameters.load(root / "params.yaml")
    return replace(
        params,
        compute=replace(params.compute, device="cpu", precision="fp32"),
        evaluate=replace(params.evaluate, cutoffs=(1, 4)),
        gate=Gate(metric="precision/4", margin=0.02, minimum=0.5),
    )


def figures(verdict: gate.Verdict) -> tuple[float, float]:
    both = verdict.figures["candidate"], verdict.figures["champion"]
    return both[0]["precision/4"], both[1]["precision/4"]


def test_the_first_index_passes_if_it_is_good_enough(workspace, make, params):
    make(workspace.stage("index"))
    verdict = gate.compare(workspace, params, None)
    assert verdict.passed and "first release" in verdict.why
    assert verdict.figures["queries"] == len(QUERIES)
    assert verdict.figures["candidate"]["precision/4"] > 0.9
    assert verdict.figures["champion"] is None


def test_a_first_index_that_finds_the_wrong_images_does_not_pass(workspace, make, params):
    make(workspace.stage("index"), wrong=len(DATABASE))
    verdict = gate.compare(workspace, params, None)
    assert not verdict.passed and "below gate.minimum 0.500" in verdict.why


def test_a_better_index_passes_an_equal_one_too_and_a_worse_one_is_refused(
    workspace, make, params, tmp_path
):
    good = make(tmp_path / "good")
    bad = make(tmp_path / "bad", wrong=len(DATABASE) // 2)
    candidate = workspace.stage("index")
    shutil.copytree(good, candidate)
    better = gate.compare(workspace, params, bad)
    assert better.passed and "better" in better.why
    equal = gate.compare(workspace, params, good)
    assert equal.passed and "as the champion's" in equal.why
    assert equal.figures["candidate"] == equal.figures["champion"]
    shutil.rmtree(candidate)
    shutil.copytree(bad, candidate)
    worse = gate.compare(workspace, params, good)
    assert not worse.passed
    own, champions = figures(worse)
    assert own < champions - params.gate.margin
    assert f"{own:.3f}" in worse.why and f"{champions:.3f}" in worse.why
    assert "gate.margin allows 0.020" in worse.why


def test_an_index_that_answered_before_is_not_asked_again_unless_it_is_another(
    workspace, make, params, tmp_path, monkeypatch
):
    make(workspace.stage("index"))
    champion = make(tmp_path / "champion", wrong=len(DATABASE) // 2)
    with Index.open(workspace.stage("index")) as index:
        answer_cache.cache_answers(index, workspace, params.evaluate, params.compute)
    asked = []
    ask = answer_cache._search
    monkeypatch.setattr(
        answer_cache, "_search", lambda folder, *_: asked.append(folder) or ask(folder, *_)
    )
    first = gate.compare(workspace, params, champion)
    assert asked == [champion]
    assert gate.compare(workspace, params, champion) == first and len(asked) == 1
    shutil.rmtree(workspace.cache / "answers")
    assert gate.compare(workspace, params, champion) == first and len(asked) == 3
    with Index.open(workspace.stage("index"), writable=True) as index:
        index.remove([DATABASE[0][0]])
    gate.compare(workspace, params, champion)
    assert len(asked) == 4  # the champion still holds what the catalogue has


def test_a_champion_of_another_encoder_and_tokenizer_reads_by_its_own(
    workspace, make, params, tmp_path
):
    make(workspace.stage("index"))
    verdict = gate.compare(workspace, params, make(tmp_path / "other", size=48, levels=2))
    own, champions = figures(verdict)
    assert own > 0.9 and champions > 0.9


def of_labels(*labels: int) -> list[tuple[str, int, bytes]]:
    return [entry for entry in DATABASE if entry[1] in labels]


def test_an_image_that_has_left_the_catalogue_is_nobodys_miss(workspace, make, params, tmp_path):
    """Of label 0 one image is left: the champion's first four would be those that are gone."""
    champion = make(tmp_path / "champion")
    left = [*of_labels(1, 2, 3), DATABASE[0]]
    write_catalog(workspace, table(left, "train"), table(QUERIES, "query"))
    make(workspace.stage("index"), left)
    verdict = gate.compare(workspace, params, champion)
    own, champions = figures(verdict)
    assert verdict.passed and own == champions == pytest.approx(0.8125)


def test_a_mutilated_index_is_not_better_than_the_whole_one(workspace, make, params, tmp_path):
    """Two labels are away, with their queries: once that looked like a gain."""
    champion = make(tmp_path / "champion")
    queries = [entry for entry in QUERIES if entry[1] in (2, 3)]
    write_catalog(workspace, table(of_labels(2, 3), "train"), table(queries, "query"))
    make(workspace.stage("index"), of_labels(2, 3))
    verdict = gate.compare(workspace, params, champion)
    assert verdict.figures["difference"] == 0 and "as the champion's" in verdict.why


def test_an_image_that_only_the_candidate_has_is_not_the_champions_miss(
    workspace, make, params, tmp_path
):
    """Give the champion two images of each label, so that its first four cannot all be right."""
    champion = make(tmp_path / "champion", [e for e in DATABASE if e[0].endswith(("-0", "-1"))])
    make(workspace.stage("index"))
    verdict = gate.compare(workspace, params, champion)
    own, champions = figures(verdict)
    assert verdict.passed and own == champions == 0.5


def test_new_images_that_crowd_out_the_right_answers_keep_an_index_back(
    workspace, make, params, tmp_path
):
    champion = make(tmp_path / "champion")
    copies = [(f"new-{name}", 9, content) for name, _, content in DATABASE]
    write_catalog(workspace, table([*DATABASE, *copies], "train"), table(QUERIES, "query"))
    make(workspace.stage("index"), [*DATABASE, *copies])
    verdict = gate.compare(workspace, params, champion)
    own, champions = figures(verdict)
    assert not verdict.passed and own == champions
    assert "the champion's, with the new images among the answers" in verdict.why


def test_a_champion_of_other_images_is_no_measure(workspace, make, params, tmp_path):
    champion = make(tmp_path / "champion", of_labels(0, 1))
    queries = [entry for entry in QUERIES if entry[1] in (2, 3)]
    write_catalog(workspace, table(of_labels(2, 3), "train"), table(queries, "query"))
    make(workspace.stage("index"), of_labels(2, 3))
    verdict = gate.compare(workspace, params, champion)
    assert verdict.passed and "which a first release has to reach" in verdict.why


def test_losses_within_the_margin_do_not_add_up(workspace, make, params, tmp_path):
    best, champion = make(tmp_path / "best"), make(tmp_path / "champion", wrong=10)
    make(workspace.stage("index"), wrong=12)  # 1.000, then 0.917, then 0.771
    params = replace(params, gate=replace(params.gate, margin=0.16))
    assert gate.compare(workspace, params, champion).passed
    verdict = gate.compare(workspace, params, champion, best)
    assert not verdict.passed and "best's, the best of the recent releases" in verdict.why
    assert gate.compare(workspace, params, champion, tmp_path / "pruned").passed


def test_labels_are_todays(workspace, make, params, tmp_path):
    champion = make(tmp_path / "champion")
    shutil.copytree(champion, workspace.stage("index"))
    before = figures(gate.compare(workspace, params, champion))
    moved = table(DATABASE, "train").with_columns(label=pl.lit("another"))
    write_catalog(workspace, moved, table(QUERIES, "query").with_columns(label=pl.lit("another")))
    assert figures(gate.compare(workspace, params, champion)) == (1.0, 1.0)
    write_catalog(workspace, moved, table(QUERIES, "query"))
    verdict = gate.compare(workspace, params, champion)
    assert not verdict.passed and "none of the 12 queries" in verdict.why
    assert before[0] < 1.0 or before == (1.0, 1.0)


def write_nearest(workspace: Workspace, rows: np.ndarray) -> None:
    """Write the database rows (Q, k) nearest to each query, as the stage ``evaluate`` does."""
    lists = RankedLists(rows, np.zeros(rows.shape, np.float32))
    codes = np.zeros((len(DATABASE), 2), int)
    path = workspace.stage("evaluate") / "runs" / "brute_force_pretrained.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.to_table(lists, np.zeros(rows.shape, bool), codes).write_parquet(path)


def test_without_labels_answers_are_compared_with_the_encoders_neighbours(
    workspace, make, params, tmp_path
):
    database, queries = (
        each.with_columns(label=pl.lit(None, pl.String)).sort("id")
        for each in (table(DATABASE, "train"), table(QUERIES, "query"))
    )
    write_catalog(workspace, database, queries)
    good = make(tmp_path / "good")
    shutil.copytree(good, workspace.stage("index"))
    numbers = {name: row for row, name in enumerate(database["id"])}
    pictures = {name: content for name, _, content in QUERIES}
    with Index.open(good) as index:
        ids = index.search([pictures[name] for name in queries["id"]], k=4).ids
    nearest = np.array([[numbers[name] for name in row] for row in ids])
    write_nearest(workspace, nearest)
    params = replace(params, gate=replace(params.gate, metric="auto"))
    first = gate.compare(workspace, params, None)
    assert first.passed and first.why.startswith("agreement/4 is 1.000, above gate.minimum")
    assert first.figures["candidate"] == {"agreement/1": 1, "agreement/4": 1}
    assert first.figures["queries"] == len(QUERIES) and first.figures["without_positive"] == 0
    better = gate.compare(workspace, params, make(tmp_path / "bad", wrong=len(DATABASE) // 2))
    assert better.passed and "better than the champion's" in better.why
    write_nearest(workspace, (nearest + len(DATABASE) // 2) % len(DATABASE))
    assert not gate.compare(workspace, params, None).passed
    assert len(gate.list_inputs(workspace, params)) == 3


def test_a_query_is_no_answer_to_itself(workspace, make, params):
    lonely = [("alone", 9, picture(9, 0)), *DATABASE]
    asked = [("alone query", 9, picture(9, 0)), *QUERIES]
    write_catalog(workspace, table(lonely, "train"), table(asked, "query"))
    folder = workspace.stage("download")
    listed = manifest.read(folder)
    with ShardWriter(folder, 2) as writer:
        shard, offset = writer.add("alone", lonely[0][2])
    sha256 = hashlib.sha256(lonely[0][2]).hexdigest()
    row = {"key": "alone", "size": len(lonely[0][2]), "etag": "", "sha256": sha256, "revision": 2}
    added = pl.DataFrame([row | {"shard": shard, "offset": offset}], schema=listed.schema)
    manifest.write(folder, pl.concat([listed, added]), revision=2, source="test")
    make(workspace.stage("index"), lonely)
    verdict = gate.compare(workspace, params, None)
    assert verdict.figures["queries"] == len(QUERIES) + 1
    assert verdict.figures["without_positive"] == 1


def test_a_link_to_the_champion_is_followed(workspace, make, params, tmp_path):
    make(workspace.stage("index"))
    make(tmp_path / "releases" / "0001")
    (tmp_path / "releases" / "champion").symlink_to("0001")
    assert gate.compare(workspace, params, tmp_path / "releases" / "champion").passed


@pytest.mark.parametrize("name", ["index.json", "embeddings.npy", "retriever.safetensors"])
def test_a_damaged_champion_is_one_clear_error(workspace, make, params, tmp_path, name):
    make(workspace.stage("index"))
    champion = make(tmp_path / "champion")
    (path,) = champion.rglob(name)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        IndexingError, match=rf"champion cannot be compared.*{name}.*irgen rollback"
    ):
        gate.compare(workspace, params, champion)


def test_a_champion_that_is_not_there_is_one_clear_error(workspace, make, params, tmp_path):
    make(workspace.stage("index"))
    with pytest.raises(IndexingError, match=r"champion cannot be compared.*no index at"):
        gate.compare(workspace, params, tmp_path / "nothing")


def test_a_damaged_candidate_is_not_taken_for_the_champion(workspace, make, params, tmp_path):
    champion = make(tmp_path / "champion")
    (path,) = make(workspace.stage("index")).rglob("tokenizer.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IndexingError) as error:
        gate.compare(workspace, params, champion)
    assert "champion" not in str(error.value)


def test_without_a_catalogue_or_an_index_the_stage_to_run_is_named(workspace, params):
    with pytest.raises(ArtifactError, match="dvc repro index"):
        gate.compare(workspace, params, None)
    (workspace.stage("catalog") / "queries.parquet").unlink()
    with pytest.raises(ArtifactError, match="dvc repro catalog"):
        gate.compare(workspace, params, None)
