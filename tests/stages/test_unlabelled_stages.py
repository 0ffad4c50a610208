"""All stages on photos without labels."""

import dataclasses
import json
import shutil

import polars as pl
import pytest

from irgen.checkpoints.calibration import load_calibration
from irgen.checkpoints.tokenizer import load_tokenizer
from irgen.errors import CatalogError
from irgen.index.index import Index
from irgen.report.comparison import METHODS
from irgen.search.calibration import Uncalibrated

from .conftest import SMALL, files, run, small_params, write_digits

WITHOUT_LABELS = {
    "pairs": {"rule": "near", "neighbours": 10},
    "tokenizer": SMALL["tokenizer"] | {"labels": "clusters", "clusters": 10, "steps": 56},
    "retriever": SMALL["retriever"] | {"steps": 42},
}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, root):
    """Return a folder of 200 digits without class folders, after all stages."""
    folder = tmp_path_factory.mktemp("unlabelled")
    write_digits(folder / "labelled", 20)
    (folder / "digits").mkdir()
    for i, path in enumerate(sorted((folder / "labelled").rglob("*.png"))):
        shutil.copy(path, folder / "digits" / f"{i:03d}.png")
    params = small_params(folder, root, **WITHOUT_LABELS)
    return folder, params, run(params, folder)


def test_a_folder_without_labels_goes_through_all_stages(unlabelled):
    folder, _, metrics = unlabelled
    assert (metrics["catalog"]["labels"], metrics["catalog"]["images/queries"]) == (0, 40)
    measured = json.loads((folder / "data/evaluate/metrics.json").read_text())
    methods = METHODS.keys() - {"classify_then_search"}
    assert set(measured) == {"queries", *methods}
    assert measured["queries"] == {"count": 40, "without_positive": 40, "total": 40}
    for method in methods:
        expected_names = {f"agreement/{k}" for k in (1, 10, 20)} | {"bytes_per_image"}
        expected_names |= {"finds_itself"} if method == "index" else set()
        assert set(measured[method]) == expected_names  # nothing that a label would be needed for
    assert measured["brute_force_pretrained"]["agreement/10"] == 1
    assert measured["brute_force_tuned"]["agreement/10"] > 10 / 160  # by chance
    assert "validation/precision/10" not in metrics["retriever"]
    assert metrics["retriever"]["validation/agreement/10"] > 10 / 160
    assert not [name for name in metrics["tokenizer"] if name.startswith("validation")]
    calibration = load_calibration(folder / "data/index/models/calibration.json")
    assert isinstance(calibration, Uncalibrated)
    page = (folder / "reports/index.html").read_text()
    assert "No query has a relevant image" not in page and "agreement@10" in page


def test_an_index_without_labels_is_searched_and_added_to(unlabelled, tmp_path):
    folder, _, _ = unlabelled
    shutil.copytree(folder / "data/index", tmp_path / "index")
    path = folder / "digits" / "007.png"
    with Index.open(tmp_path / "index", writable=True) as index:
        index.add([path], ["another"])
        hits = index.search([path], 3)
    assert "another" in hits.ids[0].tolist()


def test_clusters_teach_without_ever_looking_at_a_label(copy, root):
    folder, _ = copy
    tokenizer = WITHOUT_LABELS["tokenizer"] | {"steps": 28}
    params = small_params(folder, root, **WITHOUT_LABELS | {"tokenizer": tokenizer})
    run(params, folder, "pairs", "tokenizer")
    before = files(folder / "data/tokenizer")
    for name in ("train", "validation"):
        path = folder / f"data/catalog/{name}.parquet"
        table = pl.read_parquet(path)
        table.with_columns(label=pl.Series(table["label"].to_list()[::-1])).write_parquet(path)
    run(params, folder, "pairs", "tokenizer")
    assert files(folder / "data/tokenizer") == before
    _, names = load_tokenizer(folder / "data/tokenizer/tokenizer.safetensors")
    assert names == [str(number) for number in range(10)]


def test_what_needs_labels_names_the_remedy(unlabelled, root):
    folder, params, _ = unlabelled
    with pytest.raises(CatalogError, match=r"near_same_label needs labels.*rule: near"):
        by_label = dataclasses.replace(params.pairs, rule="near_same_label")
        run(dataclasses.replace(params, pairs=by_label), folder, "pairs")
    given = dataclasses.replace(params.tokenizer, labels="given")
    with pytest.raises(CatalogError, match=r"have no label.*tokenizer.labels to clusters"):
        run(dataclasses.replace(params, tokenizer=given), folder, "tokenizer")
    many = dataclasses.replace(params.tokenizer, clusters=1000)
    with pytest.raises(CatalogError, match=r"cannot form 1000 clusters.*tokenizer.clusters to \d+"):
        run(dataclasses.replace(params, tokenizer=many), folder, "tokenizer")
