"""Catalogues of unusual shapes: very many labels, one huge label, one picture very often."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from irgen.errors import CatalogError
from irgen.evaluation.query_set import QuerySet, RankedLists
from irgen.params import load
from irgen.stages import tokenizer

from .conftest import run, small_params, write_digits


def test_more_labels_than_a_classifier_can_have_are_refused_with_the_remedy(
    root, monkeypatch
) -> None:
    monkeypatch.setattr(tokenizer, "MOST_LABELS", 50)
    settings = load(root / "params.yaml").tokenizer
    pairs = pl.DataFrame({"label": [f"label-{image // 2}" for image in range(120)]})
    with pytest.raises(CatalogError, match=r"60 labels.*at most 50.*tokenizer.labels to clusters"):
        tokenizer.list_classes(pairs, settings)
    assert len(tokenizer.list_classes(pairs.head(100), settings)) == 50
    clusters = replace(settings, labels="clusters")
    assert len(tokenizer.list_classes(pairs, clusters)) == settings.clusters


def test_a_million_labels_of_two_images_are_counted_and_judged_in_seconds() -> None:
    rows = pl.int_range(2_000_000, eager=True)
    database = pl.DataFrame({"label": (rows // 2).cast(pl.String), "sha256": rows.cast(pl.String)})
    query_set = QuerySet.build(database.head(1000), database, 10)
    assert (query_set.positives == 1).all() and query_set.depth == 10
    ids = np.arange(1000)[:, None] ^ np.array([[0, 1]])  # itself, and the other of its label
    lists = query_set.drop_self(RankedLists(ids, np.zeros(ids.shape, np.float32)), 1)
    assert query_set.mark_relevant(lists.ids).all()


def test_a_huge_label_and_a_thousand_copies_of_a_query_leave_the_lists_bounded() -> None:
    rows = pl.int_range(101_000, eager=True)
    database = pl.DataFrame(
        {"label": ["all"] * len(rows), "sha256": rows.clip(lower_bound=999).cast(pl.String)}
    )
    query_set = QuerySet.build(database[[0, 2000]], database, 10)
    assert query_set.positives.tolist() == [100_000, 100_999]
    assert query_set.depth == 1000 and query_set.search_depth(10) == 110


@pytest.mark.slow
def test_a_sample_of_the_queries_is_measured_and_every_later_stage_reads_it(tmp_path, root) -> None:
    write_digits(tmp_path / "digits", 20)
    steps = {"tokenizer": {"steps": 8}, "retriever": {"steps": 8}}
    whole = small_params(tmp_path, root)
    short = {name: replace(getattr(whole, name), **values) for name, values in steps.items()}
    params = replace(whole, **short, evaluate=replace(whole.evaluate, queries=12))
    metrics = run(params, tmp_path)
    measured = json.loads((tmp_path / "data/evaluate/metrics.json").read_text())
    assert measured["queries"] == {"count": 12, "total": 40, "without_positive": 0}
    assert metrics["evaluate"]["queries/total"] == 40
    assert metrics["drift"]["quality/old/queries"] == 12
    precision = measured["index"]["precision/10"]
    assert metrics["drift"]["quality/old/precision/10"] == pytest.approx(precision)
    page = (tmp_path / "reports/index.html").read_text()
    assert "Of 12 queries, a sample of 40" in page
