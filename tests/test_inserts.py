"""Inserted and unseen images: groups, trainings and measures of benchmarks/inserts.py."""

import dataclasses
import importlib.util

import polars as pl
import pytest

from irgen.catalog import columns
from irgen.catalog.table import SCHEMA, read_table
from irgen.params import load


@pytest.fixture(scope="module")
def inserts(root):
    path = root / "benchmarks" / "inserts.py"
    spec = importlib.util.spec_from_file_location("inserts", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small_params(root, tokenizer_settings, retriever_settings):
    """Return parameters for the digits whose models are trained in seconds."""
    default = load(root / "params.yaml")
    return dataclasses.replace(
        default,
        encoder=dataclasses.replace(
            default.encoder, options={"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
        ),
        tokenizer=dataclasses.replace(tokenizer_settings, steps=44, batch_size=128),
        retriever=dataclasses.replace(retriever_settings, steps=22, batch_size=128),
        evaluate=dataclasses.replace(default.evaluate, beams=8, candidates=40),
    )


def images(labels: int, per_label: int) -> pl.DataFrame:
    names = [f"{label}/{i}" for label in range(labels) for i in range(per_label)]
    return pl.DataFrame(
        {
            "label": [name.split("/")[0] for name in names],
            "role": ["train" if int(name.split("/")[1]) else "query" for name in names],
            "sha256": names,
        }
    )


def test_every_seed_has_other_unseen_labels_and_a_tenth_of_each_other_label_is_inserted(inserts):
    table = images(20, 16)  # of each label 15 in the database
    unseen = []
    for seed in range(10):
        drawn = table.with_columns(inserts.draw_groups(table, ("train",), seed))
        seen = drawn.filter(pl.col("group") != "unseen")
        inserted = seen.group_by("label").agg((pl.col("group") == "inserted").sum())
        assert set(inserted["group"]) == {1, 2}
        assert not seen.filter((pl.col("role") == "query") & (pl.col("group") == "inserted")).height
        unseen += drawn.filter(pl.col("group") == "unseen")["label"].unique().to_list()
    assert sorted(unseen) == sorted(table["label"].unique())


def test_an_image_that_is_in_the_source_twice_is_not_inserted(inserts):
    table = images(10, 16).with_columns(sha256=pl.lit("the same"))
    assert "inserted" not in inserts.draw_groups(table, ("train",), 0).to_list()


@pytest.mark.slow
def test_held_out_images_are_in_the_database_and_not_trained_on(
    inserts, small_params, tmp_path, monkeypatch
):
    params, workspace, _ = inserts.train_seed(small_params, tmp_path)
    train, database, queries = (
        columns.flatten(read_table(workspace.existing("catalog", f"{name}.parquet")), SCHEMA)
        for name in ("train", "database", "queries")
    )
    group = dict(database.select("id", "group").iter_rows())
    assert {group[name] for name in train["id"]} == {"trained"}
    assert set(group.values()) == set(inserts.GROUPS)
    assert len(database) + len(queries) == 1797
    assert "unseen" in set(queries["group"])
    case = inserts.open_case(params, workspace)
    measured = inserts.measure(case)
    assert set(measured) == {"brute-force search", *inserts.METHODS}
    assert all(set(inserts.ROWS) <= set(values) for values in measured.values())
    assert measured["brute-force search"]["seen/found"] == 1
    seconds, counts = {"train": 1.0, "add": 1.0}, dict.fromkeys(inserts.GROUPS, 1)
    seed = {"images": counts, "seconds": seconds, "measured": measured}
    assert "| brute-force search |" in inserts.render("digits", [seed], "abc")

    monkeypatch.setattr(inserts, "run_stages", lambda *_: pytest.fail("it was trained already"))
    inserts.train_seed(small_params, tmp_path)
