"""All stages on a few hundred real digits: what they write, and that it repeats."""

import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from irgen.catalog.sources.arrays import list_digits
from irgen.checkpoints.calibration import load_calibration
from irgen.checkpoints.identifiers import load_codes
from irgen.checkpoints.models import assemble
from irgen.checkpoints.tokenizer import load_tokenizer
from irgen.checkpoints.weights import create_encoder
from irgen.errors import CatalogError, ParamsError
from irgen.index.index import Index
from irgen.report.comparison import METHODS
from irgen.search import engine
from irgen.search.calibration import Uncalibrated
from irgen.training import tokenizer as training

from .conftest import SMALL, files, run, small_params


def test_every_method_is_measured_on_every_query(built):
    folder, _, metrics = built
    measured = json.loads((folder / "data/evaluate/metrics.json").read_text())
    methods = [*METHODS]
    assert set(measured) == {"queries", *methods}
    queries, database = (
        pl.read_parquet(folder / f"data/catalog/{name}.parquet") for name in ("queries", "database")
    )
    assert set(queries["id"]) < set(database["id"])
    assert measured["queries"] == {
        "count": metrics["catalog"]["images/queries"],
        "without_positive": 0,
        "total": metrics["catalog"]["images/queries"],
    }
    for method in methods:
        assert all(0 <= v <= 1 for k, v in measured[method].items() if k != "bytes_per_image")
        ranked = pl.read_parquet(folder / f"data/evaluate/runs/{method}.parquet")
        assert ranked["query"].n_unique() == measured["queries"]["count"]
        asked = queries["sha256"][ranked["query"].to_list()]
        assert not (asked == database["sha256"][ranked["item"].to_list()]).any(), (
            "itself, or a copy"
        )
    times = json.loads((folder / "reports/latency.json").read_text())["methods"]
    assert all(0 < times[m]["search_ms"] <= times[m]["total_ms"] for m in methods)


def test_a_short_training_already_finds_more_than_chance(built):
    metrics = json.loads((built[0] / "data/evaluate/metrics.json").read_text())
    for method in set(METHODS) - {"brute_force_pretrained"}:
        assert metrics[method]["precision/10"] > 0.2, method  # ten labels: 0.1 by chance


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


def test_every_image_of_the_index_is_the_first_answer_to_itself(built):
    assert built[2]["evaluate"]["index/finds_itself"] == 1


def test_no_measurement_reads_the_labels_of_copies_of_its_queries(copy, monkeypatch):
    """Queries are images of the database here, so their labels would answer for them."""
    folder, params = copy
    told, rank = [], engine.rank_candidates

    def record(ranker, *arguments):
        told.append(ranker.labelled is not None)
        return rank(ranker, *arguments)

    monkeypatch.setattr(engine, "rank_candidates", record)
    run(params, folder, "index", "evaluate")
    assert told and not any(told)
    with Index.open(folder / "data/index") as index:
        images = sorted((folder / "digits").rglob("*.png"))[:2]
        index.search(images, 3)
    assert told[-1], "who searches is told"


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
    metrics = run(params, folder, *trained, "retriever", "index", "evaluate")
    assert 0 < metrics["evaluate"]["generative/precision/10"] <= 1
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
    metrics = run(
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
    assert metrics["catalog"]["images/validation"] == 0
    assert "validation/precision/10" not in metrics["retriever"]
    assert not [name for name in metrics["index"] if name.startswith("calibration")]
    calibration = load_calibration(folder / "data/index/models/calibration.json")
    assert isinstance(calibration, Uncalibrated) and "validation_fraction" in calibration.reason


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
    measured = json.loads((tmp_path / "data/evaluate/metrics.json").read_text())
    assert measured["queries"] == {"count": 36, "without_positive": 0, "total": 36}
    for method in METHODS:
        answers = pl.read_parquet(tmp_path / f"data/evaluate/runs/{method}.parquet")
        assert not (answers["query"] == answers["item"]).any()  # the tables are the same rows
    assert "standard (products): unseen classes" in (tmp_path / "reports/index.html").read_text()


def test_all_else_is_trained_again_on_a_pretrained_encoder_that_was_tuned(copy, root, monkeypatch):
    folder, params = copy
    weights = folder / "encoder.safetensors"
    before = create_encoder(params.encoder, 0).backbone.state_dict()
    save_file(before, weights)
    encoder = {**SMALL["encoder"], "weights": str(weights)}
    tuning = {"steps": 14, "probe_steps": 70, "learning_rate": 0.01, "pretrained_width": 8}
    params = small_params(folder, root, encoder=encoder, tokenizer=SMALL["tokenizer"] | tuning)
    trained, train = [], training.train

    def record(model, *arguments):
        trained.append(model)
        return train(model, *arguments)

    monkeypatch.setattr(training, "train", record)
    metrics = run(params, folder, "tokenizer", "identifiers")["tokenizer"]
    model, _ = load_tokenizer(folder / "data/tokenizer/tokenizer.safetensors")
    probe, tuned, last = trained
    assert tuned.encoder is not None and not len(probe.adapter.directions)
    after = tuned.encoder.backbone.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name, value in model.encoder.backbone.state_dict().items():
        assert torch.equal(value, after[name]), "the last training changes all but the encoder"
    assert torch.equal(model.adapter.directions, last.adapter.directions)
    assert len(model.adapter.directions) == 8 and model.adapter.directions.any()
    assert metrics["validation/accuracy/embedding"] > 0.2


def test_an_encoder_can_be_tuned_on_smaller_images_unless_it_reads_one_size(copy, root):
    folder, _ = copy
    small = {**SMALL["tokenizer"], "tuned_size": 12, "steps": 14}
    params = small_params(folder, root, tokenizer=small)
    run(params, folder, "tokenizer", "identifiers")
    transformer = dataclasses.replace(params.encoder, name="vit_tiny_patch16_224")
    with pytest.raises(ParamsError, match=r"tuned_size: vit_tiny.* only of 16.*set it to 0"):
        run(dataclasses.replace(params, encoder=transformer), folder, "tokenizer")
