"""A whole comparison of a few real digits: by DVC, killed half way, with its tables and runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from mlflow import MlflowClient

from flows.compare import compare
from irgen.catalog.sources.arrays import list_digits
from irgen.errors import ArtifactError
from irgen.report.comparison import METHODS
from irgen.study import results
from irgen.study.plan import PLAN, RESULTS, TABLES, Trial, load_plan, load_trial_params
from irgen.study.report import page_path
from irgen.study.tracking import log_trial
from irgen.study.trial import results_folder
from irgen.tracking import run_log

from .conftest import PrefectServer

pytestmark = pytest.mark.slow

SMALL = {
    "compute": {"batch_size": 64},
    "encoder": {
        "name": "resnet10t",
        "options": {"channels": [16, 24, 32, 48], "stem_width": 16, "output_stride": 8},
    },
    "tokenizer": {"levels": 2, "codebook": 16, "width": 16, "steps": 60, "batch_size": 16},
    "retriever": {"width": 32, "layers": 1, "heads": 2, "steps": 40, "ema_decay": 0.8},
    "evaluate": {"beams": 8, "candidates": 40},
    "tracking": {"experiment": "few-digits"},
}
DESCRIPTOR = {"width": 16, "steps": 8, "batch_size": 32}
VARIANTS = {
    "semantic": {"table": "identifiers", "title": "semantic identifiers", "changes": {}},
    "random": {
        "table": "identifiers",
        "title": "random identifiers",
        "changes": {"identifiers.rule": "random"},
    },
    "narrow": {"table": "beams", "title": "W = 2", "changes": {"evaluate.beams": 2}},
}
COMPARED = {
    "sets": ["digits"],
    "seeds": [0, 1],
    "ablation_seeds": [0],
    "compared": ["semantic", "random"],
    "ablated": ["narrow"],
    "variants": VARIANTS,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Return a project that compares two kinds of identifiers on 300 digits."""
    folder = tmp_path_factory.mktemp("comparing")
    ours = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "irgen", folder / "irgen", ignore=ours)
    (folder / "experiments").mkdir()
    for name in ("dvc.yaml", "training.yaml", ".gitignore", ".dvcignore", "experiments/dvc.yaml"):
        shutil.copyfile(root / name, folder / name)
    tree = yaml.safe_load((root / "params.yaml").read_text())
    for section, values in SMALL.items():
        tree[section] |= values
    tree["baselines"] = {"cgd": DESCRIPTOR, "irt_r": DESCRIPTOR}
    tree["download"]["source"] = str(folder / "images")
    (folder / "experiments" / "digits.yaml").write_text(yaml.safe_dump(tree))
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    (folder / PLAN).write_text(yaml.safe_dump(COMPARED))
    for entry in list_digits().entries:
        label, name = entry.key.split("/")
        label_folder = folder / "images" / label
        label_folder.mkdir(parents=True, exist_ok=True)
        if len(list(label_folder.glob("*"))) < 30:
            (label_folder / name).write_bytes(entry.read())
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def start(project: Path, *options: str) -> "subprocess.Popen[str]":
    settings = {"DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "irgen", "compare", *options],
        cwd=project,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(project: Path, *options: str) -> str:
    process = start(project, *options)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def compared(project: Path) -> tuple[Path, str, str]:
    """Kill a comparison after its first point, run the rest and the ablations; return the project
    and the output of both runs."""
    process = start(project)
    first = project / RESULTS / "digits" / "semantic" / "0" / "metrics.json"
    deadline = time.monotonic() + 300
    while not first.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return project, run(project), run(project, "--ablations")


def test_a_killed_comparison_goes_on_and_runs_no_stage_twice(
    compared: tuple[Path, str, str],
) -> None:
    _, rest, ablations = compared
    assert "digits/semantic/0: tokenizer took" not in rest, "it was there"
    assert "digits/random/0: tokenizer took" not in rest, "it is that of the semantic point"
    assert "digits/random/0: retriever took" in rest
    assert "digits/semantic/1: tokenizer took" in rest
    assert "digits/narrow/0: evaluate took" in ablations
    assert "digits/narrow/0: retriever took" not in ablations


def test_every_point_has_the_same_methods_and_the_standard_one_the_baselines(
    compared: tuple[Path, str, str],
) -> None:
    project, _, _ = compared
    plan = load_plan(project)
    loaded = results.load_results(project, plan, "digits")
    assert {name: [each.trial.seed for each in points] for name, points in loaded.items()} == {
        "semantic": [0, 1],
        "random": [0, 1],
        "narrow": [0],
    }
    first, second = loaded["semantic"]
    assert {*METHODS, "cgd", "irt_r", "hnsw", "ivf_pq"} <= set(first.metrics)
    assert set(second.metrics) == {*METHODS, "queries"}, "baselines are measured once"
    for result in (first, second):
        assert result.latency.keys() == result.metrics.keys() - {"queries"}
    assert "index" not in loaded["random"][0].metrics


def test_means_of_the_queries_are_the_metrics(compared: tuple[Path, str, str]) -> None:
    project, _, _ = compared
    result = results.load_result(project, Trial(set="digits", variant="semantic", seed=0))
    for method in ("generative", "cgd"):
        values = result.queries.filter(pl.col("method") == method)["map/R"]
        assert float(values.mean()) == pytest.approx(result.metrics[method]["map/R"], abs=1e-5)


def test_the_tables_are_there_in_every_form(compared: tuple[Path, str, str]) -> None:
    project, _, _ = compared
    folder = project / TABLES / "digits"
    markdown = (folder / "comparison.md").read_text()
    for text in ("### Methods", "### Identifiers", "### Ablation: beams", "CGD", "W = 2"):
        assert text in markdown
    assert r"\begin{tabular}" in (folder / "comparison.tex").read_text()
    page = page_path(project, "digits").read_text()
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert {"precision_over_k", "precision_recall", "latency", "bytes", "code_groups"} <= figures
    assert "What the first codes have learnt" in page and page.count("<svg") == len(figures)
    assert "data:image/" in page and "http" not in page.split("<body>")[1].split("<svg")[0]
    tables = json.loads((folder / "comparison.json").read_text())
    names = [table["name"] for table in tables]
    assert names == ["methods", "gains", "difficulty", "identifiers", "beams"]
    assert "the served index" in (folder.parent / "gains.md").read_text()
    curves = pl.read_csv(folder / "curves.csv")
    assert set(curves["curve"]) == {"precision", "recall"}


def test_mlflow_has_a_run_a_point_below_the_comparison_s_which_has_the_tables(
    compared: tuple[Path, str, str],
) -> None:
    project, _, _ = compared
    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "few-digits/comparisons"]
    runs = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    points = ["semantic identifiers, seed 0", "random identifiers, seed 1", "W = 2, seed 0"]
    above = {runs[name].data.tags["mlflow.parentRunId"] for name in points}
    (parent,) = above
    assert client.get_run(parent).data.tags["irgen.comparison_of"].startswith("digits-")
    for name in points:
        assert "generative/precision_at_10" in runs[name].data.metrics
        assert "generative/search_ms" in runs[name].data.metrics
    assert {"comparison-digits.html", "comparison.md", "figures"} <= {
        each.path for each in client.list_artifacts(parent)
    }


def test_a_point_that_was_killed_while_it_was_told_of_is_told_of_again(
    compared: tuple[Path, str, str],
) -> None:
    project, _, _ = compared
    plan, point = load_plan(project), Trial(set="digits", variant="semantic", seed=1)
    arguments = (
        project,
        plan,
        point,
        load_trial_params(project, plan, point),
        results_folder(project, point),
    )
    (home,) = (project / ".cache" / "tracking").glob("digits-semantic-1-*")
    shutil.rmtree(home)
    if not (child := os.fork()):
        whole = run_log._format
        run_log._format = lambda kind, fields: (
            os.kill(os.getpid(), signal.SIGKILL) if kind == "end" else whole(kind, fields)
        )
        log_trial(*arguments)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert run_log.list_unsynced(home.parent) == []
    log_trial(*arguments)
    kinds = [record["kind"] for record in run_log.read(home / "trial.jsonl")]
    assert kinds == ["begin", "metrics", "end"]


def test_nothing_is_done_when_nothing_has_changed(compared: tuple[Path, str, str]) -> None:
    project, _, _ = compared
    output = run(project, "--ablations")
    assert "took" not in output and "Tables: " in output


def test_the_flow_runs_the_plan_and_leaves_its_tables_in_prefect(
    prefect_server: PrefectServer, compared: tuple[Path, str, str]
) -> None:
    project, _, _ = compared
    state = compare(sets=["digits"], root=str(project), return_state=True)
    assert state.is_completed() and "digits" in state.message
    asked = {"artifacts": {"key": {"any_": ["comparison-digits"]}}}
    (artifact,) = prefect_server.ask("/artifacts/filter", asked)
    assert "### Methods" in artifact["data"]
    state = compare(sets=["none"], root=str(project), return_state=True)
    assert state.is_failed() and "'none' is no set" in state.message


def test_mistakes_are_told_in_a_line(project: Path) -> None:
    for options, message in (
        (["digit"], "'digit' is no set"),
        (["--root", "nowhere"], "comparison.yaml is missing"),
    ):
        process = start(project, *options)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 2 and message in said and len(said.splitlines()) == 1, said


def test_tables_of_nothing_are_refused(tmp_path: Path, project: Path) -> None:
    plan = load_plan(project)
    with pytest.raises(ArtifactError, match="run irgen compare digits"):
        results.load_results(tmp_path, plan, "digits")
