"""All stages on a few hundred real digits: what they write, that it repeats, what a kill costs."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from PIL import Image, ImageOps

from irgen.catalog.sources.arrays import list_digits
from irgen.checkpoints.calibration import load_calibration
from irgen.checkpoints.identifiers import load_codes
from irgen.checkpoints.models import assemble
from irgen.checkpoints.tokenizer import load_tokenizer
from irgen.checkpoints.weights import create_encoder
from irgen.cli import STAGES
from irgen.errors import CatalogError, IndexingError
from irgen.index.index import Index
from irgen.params import Params, load
from irgen.report.comparison import METHODS
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.workspace import Workspace

SMALL = {
    "compute": {"batch_size": 64},
    "encoder": {
        "name": "resnet10t",
        "options": {"channels": [16, 24, 32, 48], "stem_width": 16, "output_stride": 8},
    },
    "tokenizer": {
        "levels": 2,
        "codebook": 16,
        "width": 16,
        "steps": 112,
        "batch_size": 16,
        "validate_every": 14,
    },
    "retriever": {
        "width": 32,
        "layers": 1,
        "heads": 2,
        "steps": 168,
        "batch_size": 16,
        "validate_every": 28,
        "ema_decay": 0.8,
    },
    "evaluate": {"beams": 8, "candidates": 40},
    "report": {"gallery": 2},
}


def small_params(root: Path, project: Path, **changes: dict) -> Params:
    """The default parameters, made small, in ``root`` with a folder of 300 digits as the source."""
    tree = yaml.safe_load((project / "params.yaml").read_text())
    for section, values in {**SMALL, **changes}.items():
        tree[section] |= values
    tree["download"]["source"] = str(root / "digits")
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    return load(root / "params.yaml")


def write_digits(folder: Path, per_label: int) -> None:
    """The first images of each digit, as files in class folders."""
    for entry in list_digits().entries:
        label, name = entry.key.split("/")
        if len(list((folder / label).glob("*"))) < per_label:
            (folder / label).mkdir(parents=True, exist_ok=True)
            (folder / label / name).write_bytes(entry.read())


def run(params: Params, root: Path, *stages: str) -> dict[str, dict[str, float]]:
    found = {}
    for stage in stages or [stage for stage in STAGES if stage != "baselines"]:
        module = import_module(f"irgen.stages.{stage}")
        found[stage] = module.run(params, Workspace.at(root), lambda metrics, step: None)
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory, root):
    """A project all of whose stages ran once: (its folder, params, metrics by stage)."""
    folder = tmp_path_factory.mktemp("project")
    write_digits(folder / "digits", 30)
    params = small_params(folder, root)
    return folder, params, run(params, folder)


@pytest.fixture
def copy(built, tmp_path):
    """A copy of that project that a test may change."""
    folder, params, _ = built
    shutil.copytree(folder, tmp_path / "project")
    return tmp_path / "project", params


# what new images bring about
AGAIN = ("catalog", "features", "identifiers", "trie", "index", "evaluate", "drift", "report")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_method_is_measured_on_every_query(built):
    folder, _, metrics = built
    found = json.loads((folder / "data/evaluate/metrics.json").read_text())
    methods = [*METHODS]
    assert set(found) == {"queries", *methods}
    queries, database = (
        pl.read_parquet(folder / f"data/catalog/{name}.parquet") for name in ("queries", "database")
    )
    assert set(queries["id"]) < set(database["id"])
    assert found["queries"] == {
        "count": metrics["catalog"]["images/queries"],
        "without_positive": 0,
    }
    for method in methods:
        assert all(0 <= v <= 1 for k, v in found[method].items() if k != "bytes_per_image")
        ranked = pl.read_parquet(folder / f"data/evaluate/runs/{method}.parquet")
        assert ranked["query"].n_unique() == found["queries"]["count"]
        asked = queries["sha256"][ranked["query"].to_list()]
        assert not (asked == database["sha256"][ranked["item"].to_list()]).any(), (
            "itself, or a copy"
        )
    times = json.loads((folder / "reports/latency.json").read_text())["methods"]
    assert all(0 < times[m]["search_ms"] <= times[m]["total_ms"] for m in methods)


def test_a_short_training_already_finds_more_than_chance(built):
    found = json.loads((built[0] / "data/evaluate/metrics.json").read_text())
    for method in set(METHODS) - {"brute_force_pretrained"}:
        assert found[method]["precision/10"] > 0.2, method  # ten labels: 0.1 by chance


def test_codes_and_embeddings_are_row_aligned_and_agree(built):
    folder, _, _ = built
    model, labels = load_tokenizer(folder / "data/tokenizer/tokenizer.safetensors")
    assert labels == [str(digit) for digit in range(10)]
    for role in ("train", "database"):
        identified = load_codes(folder / "data/identifiers" / role)
        assert (
            identified.ids
            == pl.read_parquet(folder / f"data/catalog/{role}.parquet")["id"].to_list()
        )
        assert (model.tokenize(identified.embeddings) == identified.codes).all()
        norms = np.linalg.norm(identified.embeddings.numpy(), axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_an_image_has_the_same_code_as_training_and_as_database_image(built):
    folder, _, _ = built
    train, database = (load_codes(folder / "data/identifiers" / r) for r in ("train", "database"))
    codes = dict(zip(database.ids, database.codes.tolist(), strict=True))
    assert [codes[name] for name in train.ids] == train.codes.tolist()


def test_the_index_opens_alone_and_holds_the_database(built, tmp_path):
    folder, _, metrics = built
    shutil.copytree(folder / "data/index", tmp_path / "index")
    database = pl.read_parquet(folder / "data/catalog/database.parquet")
    train = pl.read_parquet(folder / "data/catalog/train.parquet")
    identified = load_codes(folder / "data/identifiers/database")
    with Index.open(tmp_path / "index") as index:
        view, snapshot = index.view, index.view.snapshot
        rows = np.arange(len(index))
        assert set(view.ids(rows)) == set(database["id"])
        kept = view.take(rows).sort("id")
        assert kept.equals(database.drop("role"))
        ids, order = view.ids(rows), np.argsort(view.ids(rows))
        assert torch.equal(snapshot.segments[0].codes[order].long(), identified.codes)
        own = snapshot.segments[0].embeddings[order]
        assert torch.equal(own, identified.embeddings.half())
        trained = snapshot.segments[0].trained.tolist()
        assert {name for name, was in zip(ids, trained, strict=True) if was} == set(train["id"])
        assert index.info()["config"] == {
            "search": {
                "beams": 8,
                "candidates": 40,
                "fresh_beams": 30,
                "rerank_weight": 0.05,
                "rerank_signal": "first_code",
                "order_by": "label",
            },
            "queries": metrics["catalog"]["images/queries"],
        }
        index.verify()
    assert metrics["index"]["images"] == len(database)
    assert 0 < metrics["index"]["bytes_per_image"] < 1000


def test_the_row_of_the_index_is_what_a_search_of_it_finds(built):
    """But for the query itself; also where it is asked for more images than it has beams."""
    folder, params, _ = built
    k = max(params.evaluate.cutoffs)
    assert params.evaluate.beams < k
    queries, database = (
        pl.read_parquet(folder / f"data/catalog/{name}.parquet") for name in ("queries", "database")
    )
    with Index.open(folder / "data/index", precision="fp32") as index:
        paths = [folder / "digits" / path for path in queries["path"]]
        found = index.search(paths, k + 1, index.options(k))
    ranked = pl.read_parquet(folder / "data/evaluate/runs/index.parquet")
    for query, (own, ids) in enumerate(zip(queries["id"], found.ids.tolist(), strict=True)):
        rows = ranked.filter(query=query)["item"]
        others = [name for name in ids if name not in (own, None)][:k]
        assert database["id"][rows.to_list()].to_list() == others


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_image_added_to_the_index_gets_what_the_pipeline_would_have_given(copy, root, precision):
    folder, params = copy
    if precision != params.compute.precision:
        params = small_params(folder, root, compute={"batch_size": 64, "precision": precision})
        run(params, folder, "features", "identifiers", "index")
    database = pl.read_parquet(folder / "data/catalog/database.parquet")[:100]
    identified = load_codes(folder / "data/identifiers/database")
    paths = [folder / "digits" / path for path in database["path"]]
    shutil.copytree(folder / "data/index", folder / "index")
    with Index.open(folder / "index", writable=True) as index:
        index.add(paths, [f"{name} again" for name in database["id"]])
        added = index.view.snapshot.segments[1]
        assert torch.equal(added.codes.long(), identified.codes[:100])
        expected = identified.embeddings[:100].half()
        torch.testing.assert_close(added.embeddings, expected, atol=1e-3, rtol=1e-3)


def test_every_image_of_the_index_is_the_first_answer_to_itself(built):
    assert built[2]["evaluate"]["index/finds_itself"] == 1


def test_the_calibration_is_of_hits_of_validation_images_that_are_not_themselves(built):
    folder, params, metrics = built
    found = load_calibration(folder / "data/index/models/calibration.json")
    assert isinstance(found, Calibration)
    validation = pl.read_parquet(folder / "data/catalog/validation.parquet")
    assert found.queries == len(validation)
    assert 0 < found.pairs <= len(validation) * max(params.evaluate.cutoffs)
    assert found.cosines[-1] < 0.99999  # of an image with itself it is 1
    assert metrics["index"]["calibration/error"] == found.error < 0.3
    assert all(abs(metrics["index"][f"calibration/gap/{n}"]) < 0.3 for n in ("trained", "fresh"))
    assert found.probabilities[-1] > found.probabilities[0]


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(built, tmp_path, root):
    folder, _, _ = built
    shutil.copytree(folder / "digits", tmp_path / "again" / "digits")
    params = small_params(tmp_path / "again", root)
    run(params, tmp_path / "again")
    first, second = files(folder / "data"), files(tmp_path / "again" / "data")
    mtime = "download/manifest.parquet"  # names the source and when its files changed
    assert {k: v for k, v in first.items() if k != mtime} == {
        k: v for k, v in second.items() if k != mtime
    }


def test_new_images_join_the_database_and_leave_training_as_it_is(copy):
    folder, params = copy
    before = files(folder / "data")
    write_digits(folder / "digits", 34)
    params = dataclasses.replace(
        params, download=dataclasses.replace(params.download, source=str(folder / "digits"))
    )
    shutil.copy(next((folder / "digits/3").glob("*.png")), folder / "digits/3/copy.png")
    (folder / "digits/4/broken.png").write_bytes(b"no")
    assert run(params, folder, "download")["download"]["images/new"] == 42
    found = run(params, folder, *AGAIN)
    after = files(folder / "data")
    usable = {f"{path.parent.name}/{path.name}" for path in (folder / "digits").rglob("*.png")}
    usable.remove("4/broken.png")
    with Index.open(folder / "data/index") as index:
        assert set(index.view.all_ids()) == usable, "every image can be found, new ones too"
    assert found["catalog"]["images/queries"] == 70  # a fifth of 34 of each label, rounded
    for unchanged in (
        "catalog/train.parquet",
        "catalog/validation.parquet",
        "features/train/features.npy",
        "identifiers/train/codes.parquet",
        "identifiers/validation/codes.parquet",
    ):
        assert after[unchanged] == before[unchanged]
    assert found["trie"]["images"] > len(pl.read_parquet(folder / "data/catalog/train.parquet"))
    assert after["trie/trie.safetensors"] != before["trie/trie.safetensors"]
    assert found["index"]["images"] == found["trie"]["images"]
    assert found["index"]["trained"] == len(pl.read_parquet(folder / "data/catalog/train.parquet"))


def with_new_images(folder: Path, params: Params, **settings) -> tuple[dict[str, float], dict]:
    """What the drift stage finds of the images that have come into the source, and its verdict."""
    drift = dataclasses.replace(params.drift, minimum_images=20, **settings)
    run(dataclasses.replace(params, drift=drift), folder, "download", *AGAIN)
    found = json.loads((folder / "data/drift/metrics.json").read_text())
    return found, json.loads((folder / "data/drift/verdict.json").read_text())


def test_without_new_images_nothing_has_drifted(built):
    folder, _, metrics = built
    assert metrics["drift"]["images/new"] == metrics["drift"]["drifted"] == 0
    assert metrics["drift"]["images/database"] == 300  # with queries, in neither training table
    assert json.loads((folder / "data/drift/metrics.json").read_text()) == metrics["drift"]
    verdict = json.loads((folder / "data/drift/verdict.json").read_text())
    assert verdict["exceeded"] == [] and (verdict["revision"], verdict["trained"]) == (1, 1)
    assert not [name for name in metrics["drift"] if name.startswith("signal/")]
    queries = metrics["catalog"]["images/queries"]
    assert metrics["drift"]["quality/old/queries"] == queries
    found = json.loads((folder / "data/evaluate/metrics.json").read_text())["index"]
    same = {k: v for k, v in metrics["drift"].items() if k.startswith("quality/old/precision/")}
    assert same == {f"quality/old/{k}": v for k, v in found.items() if k.startswith("precision/")}


def test_new_images_of_known_classes_are_no_drift(copy, root):
    folder, params = copy
    params = small_params(folder, root)
    write_digits(folder / "digits", 40)
    found, verdict = with_new_images(folder, params)
    assert found["images/new"] == verdict["new"] == 100  # 10 of each digit; 2 of each measure
    assert found["quality/new/queries"] == 20
    assert verdict["enough"] and not verdict["drifted"], verdict
    assert verdict["revision"] == found["revision"] == 2


def test_images_of_unknown_classes_and_known_ones_in_a_new_guise_are_drift(copy, root, capsys):
    folder, params = copy
    params = small_params(folder, root)
    for path in sorted((folder / "digits").rglob("*.png"))[::5]:
        with Image.open(path) as picture:
            changed = ImageOps.solarize(picture.convert("L"), 100)  # strokes turn hollow
        changed.save(path.with_name(f"changed-{path.name}"))
    _, verdict = with_new_images(folder, params)
    assert verdict["drifted"]
    assert "residual_ratio" in {each["name"] for each in verdict["exceeded"]}
    assert "unseen_labels" not in {each["name"] for each in verdict["exceeded"]}
    assert "They differ too much from the training images" in capsys.readouterr().out
    assert "<h2>Drift</h2>" in (folder / "reports/index.html").read_text()
    shutil.move(folder / "digits/7", folder / "digits/seven")
    _, verdict = with_new_images(folder, params, residual_ratio=1000.0)
    (labels,) = (each for each in verdict["exceeded"] if each["name"] == "unseen_labels")
    assert 0.1 < labels["value"] < 1 and verdict["revision"] == 3


ALONE = """
import importlib, pathlib, sys
from irgen.params import load
from irgen.workspace import Workspace
stage, root = sys.argv[1], pathlib.Path(sys.argv[2])
run = importlib.import_module(f"irgen.stages.{stage}").run
run(load(root / "params.yaml"), Workspace.at(root), lambda metrics, step: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tokenizer", "retriever"])
def test_a_training_killed_half_way_goes_on_and_ends_the_same(copy, stage):
    folder, _ = copy
    output = folder / "data" / stage
    whole = files(output)
    shutil.rmtree(output)
    command = [sys.executable, "-c", ALONE, stage, str(folder)]
    # Sums come out the same on the same number of threads only.
    settings = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL)
    states, deadline = folder / ".cache" / "training", time.monotonic() + 60
    while not list(states.glob("*/state.safetensors")):
        assert child.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline, "no round within a minute"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not output.exists()
    again = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert f"{stage}: going on after step" in again.stdout + again.stderr
    assert files(output) == whole
    assert not list(states.glob("*/state.safetensors"))


def test_fewer_images_than_codebook_entries_is_one_clear_error(copy):
    folder, params = copy
    big = dataclasses.replace(
        params, tokenizer=dataclasses.replace(params.tokenizer, codebook=1000)
    )
    with pytest.raises(CatalogError, match=r"codebook: 1000 codes.*set tokenizer.codebook to \d+"):
        run(big, folder, "tokenizer")


def test_the_only_training_image_of_a_label_learns_its_own_code(copy):
    folder, params = copy
    path = folder / "data/catalog/train.parquet"
    table = pl.read_parquet(path)
    label = pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("alone")).otherwise("label")
    table.with_columns(label=label).write_parquet(path)
    assert run(params, folder, "pairs")["pairs"]["without_neighbour"] == 1
    pairs = pl.read_parquet(folder / "data/pairs/pairs.parquet")
    assert pairs.filter(pl.col("anchor") == pl.col("positive")).rows() == [(7, 7, 1.0)]
    assert pairs.filter(anchor=7).height == 1 and not pairs.filter(positive=7, anchor=8).height
    assert pairs["anchor"].is_sorted() and pairs["anchor"].n_unique() == len(table)


FROZEN = {"tokenizer": {**SMALL["tokenizer"], "tune_encoder": False, "hidden": 32, "dropout": 0.1}}


@pytest.mark.parametrize(
    ("encoder", "tune", "sections"),
    [
        ("pretrained", False, {}),
        ("pretrained", True, {}),
        ("tokenizer", True, {}),
        ("tokenizer", False, FROZEN),
    ],
    ids=["pretrained, frozen", "pretrained, tuned", "tokenizer's, tuned", "all frozen"],
)
def test_the_retrievers_encoder_may_be_anyones_frozen_or_tuned(copy, root, encoder, tune, sections):
    folder, _ = copy
    chosen = {**SMALL["retriever"], "encoder": encoder, "tune_encoder": tune, "steps": 28}
    params = small_params(folder, root, **sections, retriever=chosen, augment={"views": 2})
    trained = ("tokenizer", "identifiers", "trie") if sections else ()
    found = run(params, folder, *trained, "retriever", "index", "evaluate")
    assert 0 < found["evaluate"]["generative/precision/10"] <= 1
    with Index.open(folder / "data/index") as index:
        kept = index.models
    own = assemble(
        folder / "data/tokenizer/tokenizer.safetensors",
        folder / "data/retriever/retriever.safetensors",
        create_encoder(params.encoder, params.seed),
    )
    pixels = torch.randint(256, (3, 1, 16, 16), dtype=torch.uint8)
    for one, other in zip(*(vars(m.encode(pixels)).values() for m in (kept, own)), strict=True):
        assert torch.equal(one, other)


def test_a_training_says_how_many_steps_it_took_and_whether_more_would_help(built):
    _, params, metrics = built
    for stage, settings in (("tokenizer", params.tokenizer), ("retriever", params.retriever)):
        values = metrics[stage]
        assert 0 < values["best_step"] <= values["steps"] <= settings.steps
        assert values["validation_rising"] in (0, 1)


def test_without_validation_images_the_last_steps_weights_are_kept(copy, root):
    folder, _ = copy
    params = small_params(folder, root, catalog={"validation_fraction": 0.0})
    retriever = dataclasses.replace(params.retriever, steps=28)
    found = run(
        dataclasses.replace(params, retriever=retriever),
        folder,
        "catalog",
        "features",
        "pairs",
        "tokenizer",
        "identifiers",
        "retriever",
        "index",
    )
    assert found["catalog"]["images/validation"] == 0
    assert "validation/precision/10" not in found["retriever"]
    assert not [name for name in found["index"] if name.startswith("calibration")]
    known = load_calibration(folder / "data/index/models/calibration.json")
    assert isinstance(known, Uncalibrated) and "validation_fraction" in known.reason


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Stanford")
def test_all_stages_answer_by_a_protocol_of_unseen_classes(root, tmp_path):
    """Digits laid out as Stanford Online Products: 0 to 6 are trained on, 7 to 9 ask each other."""
    lines = {"train": [], "test": []}
    for entry in list_digits().entries:
        label, name = entry.key.split("/")
        rows = lines["train" if int(label) < 7 else "test"]
        if sum(row.startswith(f"{label} ") for row in rows) < 12:
            path = tmp_path / "digits" / "digit_final" / f"{label}_{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.read())
            rows.append(f"{label} 1 digit_final/{path.name}")
    for part, rows in lines.items():
        numbered = [f"{i} {row}" for i, row in enumerate(rows, start=1)]
        head = "image_id class_id super_class_id path"
        text = "\n".join([head, *numbered])
        (tmp_path / "digits" / f"Ebay_{part}.txt").write_text(text)
    tokenizer = SMALL["tokenizer"] | {"steps": 28}
    retriever = SMALL["retriever"] | {"steps": 28}
    catalog = {"protocol": "standard"}
    params = small_params(tmp_path, root, catalog=catalog, tokenizer=tokenizer, retriever=retriever)
    metrics = run(params, tmp_path)
    assert metrics["catalog"]["images/queries"] == metrics["catalog"]["images/database"] == 36
    found = json.loads((tmp_path / "data/evaluate/metrics.json").read_text())
    assert found["queries"] == {"count": 36, "without_positive": 0}
    for method in METHODS:
        answers = pl.read_parquet(tmp_path / f"data/evaluate/runs/{method}.parquet")
        assert not (answers["query"] == answers["item"]).any()  # the tables are the same rows
    assert "standard (products): unseen classes" in (tmp_path / "reports/index.html").read_text()


def codes_of(folder: Path) -> dict[str, dict[str, list[int]]]:
    """Codes by role and id."""
    found = {}
    for role in ("train", "validation", "database", "queries"):
        identified = load_codes(folder / "data/identifiers" / role)
        found[role] = dict(zip(identified.ids, identified.codes.tolist(), strict=True))
    return found


@pytest.mark.parametrize("rule", ["random", "hierarchical_kmeans", "rqvae"])
def test_codes_by_another_rule_go_through_all_stages_that_do_not_serve(copy, root, rule):
    folder, _ = copy
    before = codes_of(folder)
    embeddings = (folder / "data/identifiers/database/embeddings.npy").read_bytes()
    params = small_params(
        folder,
        root,
        identifiers={"rule": rule, "rqvae_steps": 10},
        retriever=SMALL["retriever"] | {"steps": 28},
    )
    shutil.rmtree(folder / "data/index")
    found = run(params, folder, "identifiers", "trie", "retriever", "evaluate", "report")
    after = codes_of(folder)
    assert after["database"] != before["database"]
    assert all(after["database"][name] == code for name, code in after["train"].items())
    assert (folder / "data/identifiers/database/embeddings.npy").read_bytes() == embeddings
    measured = json.loads((folder / "data/evaluate/metrics.json").read_text())
    assert set(measured) == {"queries", *METHODS} - {"brute_force_codes", "index"}
    assert 0 < measured["generative"]["precision/10"] <= 1
    for level in range(2):
        entries = [code[level] for code in after["database"].values()]
        assert 0 <= min(entries) <= max(entries) < 16
    if rule == "rqvae":
        error = found["identifiers"]
        assert error["rqvae/error/level_2"] < error["rqvae/error/level_1"] < 1
    for stage in ("index", "drift"):
        with pytest.raises(IndexingError, match=f"rule: '{rule}'.*identifiers.rule to semantic"):
            run(params, folder, stage)
    assert not (folder / "data/index").exists()


def test_codes_by_any_rule_repeat_byte_for_byte(copy, root):
    folder, _ = copy
    for rule in ("random", "hierarchical_kmeans", "rqvae"):
        params = small_params(folder, root, identifiers={"rule": rule, "rqvae_steps": 3})
        run(params, folder, "identifiers")
        first = files(folder / "data/identifiers")
        shutil.rmtree(folder / "data/identifiers")
        run(params, folder, "identifiers")
        assert files(folder / "data/identifiers") == first


def test_without_the_trie_identifiers_that_do_not_exist_are_counted_and_find_nothing(copy, root):
    folder, _ = copy
    bound = json.loads((folder / "data/evaluate/metrics.json").read_text())
    sections = SMALL["evaluate"] | {"trie": False}
    run(small_params(folder, root, evaluate=sections), folder, "evaluate")
    free = json.loads((folder / "data/evaluate/metrics.json").read_text())
    for name in ("brute_force_pretrained", "brute_force_tuned", "brute_force_codes", "index"):
        assert free[name] == bound[name]
    for name in ("generative", "generative_reranked"):
        assert 0 < free[name]["invalid"] < 1 and "invalid" not in bound[name]
        assert 0 < free[name]["precision/10"] <= bound[name]["precision/10"] + 0.05
    run(
        small_params(folder, root, evaluate={"beams": 256, "trie": False, "candidates": 300}),
        folder,
        "evaluate",
    )
    every = json.loads((folder / "data/evaluate/metrics.json").read_text())
    codes = codes_of(folder)["database"].values()
    exist = len({tuple(code) for code in codes}) / 16**2
    assert every["generative"]["invalid"] == pytest.approx(1 - exist)


def test_the_retriever_is_not_trained_on_images_that_are_inserted_later(copy, root):
    folder, _ = copy
    whole = len(pl.read_parquet(folder / "data/catalog/train.parquet"))
    params = small_params(
        folder,
        root,
        catalog={"inserted_fraction": 0.25},
        tokenizer=SMALL["tokenizer"] | {"steps": 28},
        retriever=SMALL["retriever"] | {"steps": 28},
    )
    stages = ("catalog", "features", "pairs", "tokenizer", "identifiers", "trie", "retriever")
    found = run(params, folder, *stages, "index", "evaluate", "drift")
    inserted = found["catalog"]["images/inserted"]
    assert 0.2 < inserted / whole < 0.3
    assert found["index"]["trained"] == whole - inserted
    assert found["index"]["images"] == found["catalog"]["images/database"]
    assert found["drift"]["images/new"] == 0  # nothing has come since


WITHOUT_LABELS = {
    "pairs": {"rule": "near", "neighbours": 10},
    "tokenizer": SMALL["tokenizer"] | {"labels": "clusters", "clusters": 10, "steps": 56},
    "retriever": SMALL["retriever"] | {"steps": 42},
}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, root):
    """A folder of 200 digits in no class folders, through all stages."""
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
    there = METHODS.keys() - {"classify_then_search"}
    assert set(measured) == {"queries", *there}
    assert measured["queries"] == {"count": 40, "without_positive": 40}
    for method in there:
        told = {f"agreement/{k}" for k in (1, 10, 20)} | {"bytes_per_image"}
        assert set(measured[method]) == told  # nothing that a label would be needed for
    assert measured["brute_force_pretrained"]["agreement/10"] == 1
    assert measured["brute_force_tuned"]["agreement/10"] > 10 / 160  # by chance
    assert "validation/precision/10" not in metrics["retriever"]
    assert metrics["retriever"]["validation/agreement/10"] > 10 / 160
    assert not [name for name in metrics["tokenizer"] if name.startswith("validation")]
    known = load_calibration(folder / "data/index/models/calibration.json")
    assert isinstance(known, Uncalibrated)
    page = (folder / "reports/index.html").read_text()
    assert "No query has a relevant image" not in page and "agreement@10" in page


def test_an_index_without_labels_is_searched_and_added_to(unlabelled, tmp_path):
    folder, _, _ = unlabelled
    shutil.copytree(folder / "data/index", tmp_path / "index")
    path = folder / "digits" / "007.png"
    with Index.open(tmp_path / "index", writable=True) as index:
        index.add([path], ["another"])
        found = index.search([path], 3)
    assert "another" in found.ids[0].tolist()


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
