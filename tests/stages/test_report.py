"""The report stage on a small workspace of digits."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from irgen import params as parameters
from irgen.catalog import manifest
from irgen.catalog.shards import ShardWriter
from irgen.catalog.table import write_table
from irgen.checkpoints.calibration import CALIBRATION, save_calibration
from irgen.checkpoints.ranking import RANKING, save_ranking
from irgen.errors import ArtifactError
from irgen.evaluation import metrics, runs
from irgen.evaluation.drift_verdict import Exceeded, Verdict
from irgen.evaluation.query_set import RankedLists, count_positives, mark_relevant
from irgen.files.digests import file_digest
from irgen.files.records import write_json
from irgen.files.workspace import Workspace
from irgen.report.comparison import METHODS
from irgen.search.calibration import Bin, Calibration, Uncalibrated
from irgen.stages import report

SIZES = {"train": 60, "validation": 10, "queries": 20}
K = 20
KNOWN = Calibration(
    cosines=(0.2, 0.5, 0.8),
    probabilities=(0.05, 0.4, 0.98),
    queries=40,
    pairs=4000,
    error=0.014,
    reliability=(
        Bin(predicted=0.06, observed=0.04, pairs=700),
        Bin(predicted=0.45, observed=0.5, pairs=300),
        Bin(predicted=0.97, observed=0.97, pairs=3000),
    ),
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Return a workspace as the earlier stages leave it."""
    return build(tmp_path_factory.mktemp("project"))


def build(folder, labelled=True):
    workspace = Workspace.at(folder)
    digits = load_digits()
    total = sum(SIZES.values())
    names = [f"digit <{label}>" if labelled else None for label in digits.target[:total]]
    catalog = write_catalog(workspace, write_images(workspace, digits.images[:total], names))
    write_evaluation(workspace, catalog, digits.data[:total])
    write_histories(workspace)
    write_calibration(workspace, KNOWN)
    write_drift(workspace, Verdict(new=0, enough=False, **STILL), {})
    return workspace


def write_images(workspace, images, labels):
    """Pack the images; return the rows of their catalog."""
    folder, rows = workspace.stage("download"), []
    with ShardWriter(folder, 1) as writer:
        for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            buffer = io.BytesIO()
            Image.fromarray((pixels * 15).astype(np.uint8)).save(buffer, "PNG")
            content, key = buffer.getvalue(), f"{i:04d}.png"
            shard, offset = writer.add(key, content)
            sha256 = hashlib.sha256(content).hexdigest()
            row = {"key": key, "size": len(content), "etag": "", "sha256": sha256, "revision": 1}
            rows.append(row | {"shard": shard, "offset": offset, "version": None, "label": label})
    table = pl.DataFrame(rows, schema={**manifest.SCHEMA, "label": pl.String})
    manifest.write(folder, table.drop("label"), revision=1, source="test")
    side = pl.lit(8, pl.Int32)
    return table.select("sha256", "label", id="key", path="key", width=side, height=side)


def write_catalog(workspace, table):
    folder = workspace.stage("catalog")
    folder.mkdir(parents=True)
    ends = np.cumsum([0, *SIZES.values()])
    parts = {
        role: table[int(a) : int(b)] for role, a, b in zip(SIZES, ends[:-1], ends[1:], strict=True)
    }
    catalog = parts | {"database": pl.concat([parts["train"], parts["validation"]])}
    for name, part in catalog.items():
        role = pl.lit("query" if name == "queries" else "train")
        write_table(folder / f"{name}.parquet", part.with_columns(role=role))
    rejected = {"key": ["bad & broken.png"], "reason": ["truncated"]}
    pl.DataFrame(rejected).write_parquet(folder / "rejected.parquet")
    leaks = {"same_file": 0, "near_image": 2, "shared_label": 0}
    protocol = {"format": "inshop", "protocol": "irgen", "says": "all is <known>", "leaks": leaks}
    write_json(folder / "protocol.json", protocol)
    return catalog


def write_evaluation(workspace, catalog, features):
    """Five brute-force searches that differ by noise, under the names of the five methods."""
    generator = np.random.default_rng(0)
    queries, database = catalog["queries"], catalog["database"]
    own, others = features[len(database) :], features[: len(database)]
    codes = generator.integers(0, 4, (len(database), 4))
    folder = workspace.stage("evaluate")
    (folder / "runs").mkdir(parents=True)
    positives = count_positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    measured, curve = {"queries": metrics.count_queries(positives)}, []
    for i, method in enumerate(METHODS):
        scores = (
            own @ others.T / 5000 + generator.normal(size=(len(own), len(others))) * (4 - i) * 0.05
        )
        ids = scores.argsort(axis=1)[:, ::-1][:, :K]
        if method == "generative":
            ids[0, 6:] = -1
        ranked = np.take_along_axis(scores, ids, axis=1).astype(np.float32)
        hits = mark_relevant(ids, queries["label"], database["label"])
        runs.to_table(RankedLists(ids, ranked), hits, codes).write_parquet(
            folder / "runs" / f"{method}.parquet"
        )
        measured[method] = (
            metrics.summarise(hits, positives, (1, 10, 20))
            if positives.any()
            else {"agreement/1": 0.5, "agreement/10": 0.625}
        ) | {"bytes_per_image": 256.0}
        precision = metrics.precision_curve(hits, positives, K)
        curve += [{"method": method, "k": k + 1, "precision": p} for k, p in enumerate(precision)]
    write_json(folder / "metrics.json", measured)
    curve = pl.DataFrame(
        curve, schema={"method": pl.String, "k": pl.Int64, "precision": pl.Float64}
    )
    curve.head(len(curve) if positives.any() else 0).write_csv(folder / "precision.csv")
    times = {
        method: {"search_ms": 0.5 + i, "total_ms": 2.5 + i} for i, method in enumerate(METHODS)
    }
    digest = file_digest(folder / "metrics.json")
    write_json(workspace.reports / "latency.json", {"metrics_digest": digest, "methods": times})
    identifiers = workspace.stage("identifiers") / "database"
    identifiers.mkdir(parents=True)
    levels = {f"level_{m + 1}": codes[:, m] for m in range(4)}
    pl.DataFrame({"id": database["id"], **levels}).write_parquet(identifiers / "codes.parquet")


def write_histories(workspace):
    steps = np.arange(1, 9)
    curve = 1 - 0.8 / steps
    columns = {
        "step": steps,
        "loss": 3 - 2 * curve,
        "loss/embedding": 1 - curve,
        "loss/prefix": 1.5 - curve,
    }
    columns |= {"accuracy/embedding": curve, "validation/accuracy/embedding": curve * 0.9}
    for m in range(1, 5):
        columns[f"accuracy/prefix_{m}"] = curve * (0.9 + m / 50)
        columns[f"validation/accuracy/prefix_{m}"] = curve * (0.8 + m / 50)
        columns[f"codes_used/level_{m}"] = np.full(8, 32 - m)
        columns[f"perplexity/level_{m}"] = 20 * curve + m
    workspace.stage("tokenizer").mkdir(parents=True)
    pl.DataFrame(columns).write_csv(workspace.stage("tokenizer") / "history.csv")
    validated = [float(c) if s % 4 == 0 else None for s, c in zip(steps, curve, strict=True)]
    columns = {"step": steps, "loss": 3 - 2 * curve, "validation/precision/10": validated}
    columns |= {f"accuracy/level_{m}": curve * (1 - m / 50) for m in range(1, 5)}
    workspace.stage("retriever").mkdir(parents=True)
    pl.DataFrame(columns).write_csv(workspace.stage("retriever") / "history.csv")


STILL = {"drifted": False, "exceeded": (), "revision": 3, "trained": 1}


def write_drift(workspace, verdict, values):
    signals = {f"signal/{name}": value for name, value in values.items()}
    write_json(workspace.stage("drift") / "metrics.json", signals)
    write_json(workspace.stage("drift") / "verdict.json", verdict.to_json())


def write_calibration(workspace, calibration):
    models = workspace.stage("index") / "models"
    save_calibration(models / CALIBRATION, calibration)
    save_ranking(models / RANKING, Uncalibrated(reason="no labels"))


@pytest.fixture(scope="module")
def params(request):
    return parameters.load(request.config.rootpath / "params.yaml")


def ignore(metrics, step):
    pass


def test_the_page_holds_the_table_the_gallery_and_the_rejected_images(workspace, params, capsys):
    assert report.run(params, workspace, ignore) == {"warnings": 0}
    page = workspace.reports / "index.html"
    assert capsys.readouterr().out == f"report: {page}\n"
    html = page.read_text()
    for name in METHODS.values():
        assert f"<td>{name}</td>" in html
    assert html.count('class="example"') == params.report.gallery
    assert "bad &amp; broken.png" in html
    assert "digit &lt;3&gt;" in html and "digit <3>" not in html
    assert "not measured on this machine" not in html
    assert "<h2>Drift</h2>" not in html
    assert "irgen (inshop): all is &lt;known&gt;" in html
    assert "nearly the same picture (2)" in html


def test_the_page_leads_with_what_the_served_index_returns(workspace, params):
    report.run(params, workspace, ignore)
    html = (workspace.reports / "index.html").read_text()
    assert html.count("the served index: ") == params.report.gallery
    assert "generative search: " not in html
    parts = ["Drawn at random", "Among the best", "Among the worst", "confusions", "<h2>Methods"]
    assert [html.index(part) for part in parts] == sorted(html.index(part) for part in parts)
    assert html.index("<h2>Methods") < html.index("<h2>Curves")


def test_the_page_says_when_and_where_it_was_made(workspace, params):
    facts = [("Made", "30 November 2026, 12:40", ""), ("Served", "release 3", "../releases/3")]
    write_json(workspace.reports / "build.json", facts)
    report.run(params, workspace, ignore)
    html = (workspace.reports / "index.html").read_text()
    assert "30 November 2026, 12:40" in html
    assert '<a href="../releases/3">release 3</a>' in html
    (workspace.reports / "build.json").unlink()


def test_images_without_labels_get_the_same_page_with_neighbours(tmp_path, params):
    workspace = build(tmp_path, labelled=False)
    report.run(params, workspace, ignore)
    html = (workspace.reports / "index.html").read_text()
    assert html.count('class="example"') == params.report.gallery
    assert "are also among the encoder" in html and "62.5% are also among" in html
    assert "no labels" in html and "0000.png" in html
    body = html.split('id="definitions"')[0]
    for absent in ("no data", "confusions", "(no label)", "relevant", "hit@", "precision over k"):
        assert absent not in body
    names = {path.stem for path in (workspace.stage("report") / "figures").glob("*.svg")}
    assert "precision" not in names and "tokenizer_losses" in names


def test_two_runs_draw_the_same_figures_and_write_the_same_page(workspace, params):
    drawings = []
    for _ in range(2):
        report.run(params, workspace, ignore)
        drawn = sorted((workspace.stage("report") / "figures").glob("*.svg"))
        drawings.append([path.read_bytes() for path in [*drawn, workspace.reports / "index.html"]])
    assert len(drawings[0]) == 10  # codes_used does not move
    assert drawings[0] == drawings[1]


def test_the_page_says_where_images_are_from_without_its_password(workspace, params):
    source = "https://me:a-long-one@example.org/set.zip?X-Amz-Signature=signed"
    secret = replace(params, download=replace(params.download, source=source))
    report.run(secret, workspace, ignore)
    page = (workspace.reports / "index.html").read_text()
    assert "example.org/set.zip" in page
    assert "a-long-one" not in page and "signed" not in page


def test_without_a_calibration_the_page_says_why_and_has_no_curve(workspace, params):
    write_calibration(workspace, Uncalibrated(reason="7 validation queries are too few"))
    report.run(params, workspace, ignore)
    assert "7 validation queries are too few" in (workspace.reports / "index.html").read_text()
    assert not (workspace.stage("report") / "figures" / "reliability.svg").exists()
    write_calibration(workspace, KNOWN)


def test_new_images_are_told_of_with_what_exceeds_its_limit(workspace, params):
    limit = params.drift.residual_ratio
    over = Exceeded(name="residual_ratio", value=2.5, threshold=limit)
    verdict = Verdict(new=1234, enough=True, **STILL | {"drifted": True, "exceeded": (over,)})
    write_drift(workspace, verdict, {"residual_ratio": 2.5, "unseen_labels": 0.04})
    report.run(params, workspace, ignore)
    html = (workspace.reports / "index.html").read_text()
    assert "1,234 images have joined the database" in html
    assert "training.yaml to 3" in html
    assert f"above the limit</td><td>2.50×</td><td>{limit:.2f}×</td>" in html
    assert "<td>4.0%</td>" in html
    assert html.count("above the limit") == 1
    write_drift(workspace, Verdict(new=0, enough=False, **STILL), {})


def test_without_a_gallery_and_with_small_cutoffs_the_page_is_still_written(workspace, params):
    changed = replace(
        params,
        report=replace(params.report, gallery=0),
        evaluate=replace(params.evaluate, cutoffs=(1, 5)),
    )
    report.run(changed, workspace, ignore)
    html = (workspace.reports / "index.html").read_text()
    assert 'class="example"' not in html
    assert "cost in P@5" in html


def test_a_missing_input_is_an_error_that_names_the_stage_to_run(tmp_path, params):
    with pytest.raises(ArtifactError, match="dvc repro catalog"):
        report.run(params, Workspace.at(tmp_path), ignore)
    assert not (tmp_path / "reports" / "index.html").exists()
