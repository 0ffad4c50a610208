"""The stage of baselines on a few hundred real digits."""

import json

import polars as pl
import pytest
import yaml

from irgen.errors import ParamsError
from irgen.evaluation import ann, runs
from irgen.files.workspace import Workspace
from irgen.params import load
from irgen.report import comparison
from irgen.stages import baselines

from .conftest import SMALL, files, run, small_params, write_digits

SHORT = {"width": 24, "steps": 20, "batch_size": 32, "warmup": 0.25}
SCANN = "scann" if ann.import_scann() else "scann_like"
NAMES = {"hnsw", "ivf_pq", SCANN, "spann_like", "cgd", "irt_r"}
BEFORE = ("download", "catalog", "features", "pairs", "tokenizer", "identifiers", "trie", "texts")
OUTPUTS = {
    "metrics.json",
    "precision.csv",
    "queries.parquet",
    "recall.csv",
    *(f"runs/{name}.parquet" for name in NAMES),
}


def shortened(root, project, **changes):
    """Parameters of a few steps, in ``root``."""
    short = {"steps": 8}
    sections = {
        "tokenizer": {**SMALL["tokenizer"], **short, "hidden": 0},
        "retriever": {**SMALL["retriever"], **short},
    }
    small_params(root, project, **{**sections, **changes})
    tree = yaml.safe_load((root / "params.yaml").read_text())
    for name in ("cgd", "irt_r"):
        tree.setdefault("baselines", {}).setdefault(name, {}).update(SHORT)
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    return load(root / "params.yaml")


@pytest.fixture(scope="module")
def built(tmp_path_factory, root):
    """Return a project in which the stages up to the baselines ran: (folder, params, metrics)."""
    folder = tmp_path_factory.mktemp("project")
    write_digits(folder / "digits", 20)
    params = shortened(folder, root)
    return folder, params, run(params, folder, *BEFORE, "retriever", "baselines")["baselines"]


def test_every_baseline_is_measured_on_every_query_and_beats_chance(built):
    folder, _, metrics = built
    output = folder / "data/baselines"
    assert set(files(output)) == OUTPUTS
    measured = json.loads((output / "metrics.json").read_text())
    assert set(measured) == {"queries", *NAMES}
    queries = len(pl.read_parquet(folder / "data/catalog/queries.parquet"))
    assert measured["queries"] == {"count": queries, "without_positive": 0, "total": queries}
    for name in NAMES:
        assert measured[name]["precision/10"] == metrics[f"{name}/precision/10"] > 0.2, name
        ranked = pl.read_parquet(output / f"runs/{name}.parquet")
        assert ranked["query"].n_unique() == queries and ranked.schema == runs.SCHEMA
    assert measured["cgd"]["bytes_per_image"] == measured["irt_r"]["bytes_per_image"] == 4 * 24
    curves = pl.read_csv(output / "precision.csv")
    assert curves.columns == ["method", "k", "precision"] and set(curves["method"]) == NAMES


def test_their_table_has_names_and_times_and_leaves_evaluates_own_alone(built):
    folder, _, _ = built
    paths = folder / "data/baselines/metrics.json", folder / "reports/baselines-latency.json"
    measured = comparison.read(*paths, comparison.BASELINES)
    assert set(measured.quality) == set(measured.latency) == NAMES
    assert all(0 < t["search_ms"] <= t["total_ms"] for t in measured.latency.values())
    shown = comparison.build_table(measured)
    assert [row[0] for row in shown.rows] == [
        title for name, title in comparison.BASELINES.items() if name in NAMES
    ]
    assert shown.note == "" and not comparison.read(*paths).quality
    assert not comparison.BASELINES.keys() & comparison.METHODS.keys()


def repeated(folder):
    """Return the stage's files without ScaNN's results, which are not repeatable: the last digits
    of its scores depend on the address of the vectors in memory, so near ties change places."""
    contents = files(folder / "data/baselines")
    if contents.pop("runs/scann.parquet", None):
        quality = json.loads(contents["metrics.json"])
        contents["metrics.json"] = {k: v for k, v in quality.items() if k != "scann"}
        lines = contents["precision.csv"].splitlines()
        contents["precision.csv"] = [line for line in lines if not line.startswith(b"scann,")]
    return contents


def test_the_stage_repeats_itself_byte_for_byte(built):
    folder, params, _ = built
    before = repeated(folder)
    run(params, folder, "baselines")
    assert repeated(folder) == before
    assert not list((folder / ".cache/training").glob("*/state.safetensors"))


def test_a_frozen_encoder_is_read_by_the_tokenizers_own_views(tmp_path, root):
    write_digits(tmp_path / "digits", 16)
    frozen = {**SMALL["tokenizer"], "tune_encoder": False, "hidden": 16, "steps": 8}
    params = shortened(tmp_path, root, tokenizer=frozen, augment={"views": 2})
    run(params, tmp_path, *BEFORE, "retriever")
    views = sorted((tmp_path / ".cache/views").iterdir())
    metrics = run(params, tmp_path, "baselines")["baselines"]
    assert sorted((tmp_path / ".cache/views").iterdir()) == views
    assert metrics["cgd/precision/10"] > 0.15 and metrics["irt_r/precision/10"] > 0.15


class KilledError(Exception):
    """Stands for a SIGKILL between two rounds."""


@pytest.mark.slow
def test_a_stage_killed_in_its_second_training_goes_on_and_ends_the_same(built, capsys):
    folder, params, _ = built
    whole = repeated(folder)

    def log(metrics, step):
        if "irt_r/loss" in metrics and step > 10:  # of the second round there is a state
            raise KilledError

    with pytest.raises(KilledError):
        baselines.run(params, Workspace.at(folder), log)
    assert len(list((folder / ".cache/training").glob("*/state.safetensors"))) == 2
    run(params, folder, "baselines")
    output = capsys.readouterr().out
    assert f"cgd: going on after step {SHORT['steps']}" in output
    assert "irt_r: going on after step 10" in output
    assert repeated(folder) == whole


def test_a_search_that_gives_fewer_than_the_largest_cutoff_is_refused(built):
    path = built[0] / "params.yaml"
    text = path.read_text()
    tree = yaml.safe_load(text)
    tree["baselines"]["scann"] = {"reranked": 5}
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ParamsError, match="baselines: scann: reranked: 5 is out of range"):
        load(path)
    path.write_text(text)
