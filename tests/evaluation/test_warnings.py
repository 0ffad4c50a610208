"""Warnings about results that a user must not take for good ones."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from irgen import params as parameters
from irgen.evaluation.query_set import QuerySet
from irgen.evaluation.warnings import (
    FINDS_ITSELF,
    Outcome,
    format_warnings,
    list_warnings,
    measure_chance,
    warn_near_chance,
    warn_not_found,
    warn_still_rising,
)


@pytest.fixture(scope="module")
def defaults(root):
    return parameters.load(root / "params.yaml")


def test_the_built_in_digits_and_metrics_that_are_missing_give_no_warning(defaults):
    assert list_warnings(Outcome(), defaults.encoder, defaults.download) == []
    assert format_warnings([]) == ""


def test_other_images_with_the_encoder_of_the_digits_are_warned_of_with_the_command(defaults):
    photos = replace(defaults.download, source="../photos")
    (warning,) = list_warnings(Outcome(), defaults.encoder, photos)
    assert "No encoder is chosen" in warning and "irgen init ../photos" in warning
    larger = replace(defaults.encoder, image_size=224)
    assert list_warnings(Outcome(), larger, photos)
    pretrained = replace(defaults.encoder, weights="hub")
    own = replace(defaults.encoder, options={"embed_dim": 128})
    assert not list_warnings(Outcome(), pretrained, photos)
    assert not list_warnings(Outcome(), own, photos)


@pytest.mark.parametrize(
    ("precision", "chance", "warned"),
    [
        (0.129, 0.10, True),  # ten kinds of photos, and the encoder of the digits
        (0.32, 0.10, True),
        (0.33, 0.10, False),
        (0.60, 0.50, True),
        (0.65, 0.50, False),
        (0.26, 0.004, False),
        (None, 0.1, False),
        (0.1, None, False),
        (1.0, 1.0, False),
    ],
)
def test_precision_near_chance_is_warned_of(precision, chance, warned):
    assert bool(warn_near_chance(precision, chance)) is warned


def test_chance_is_the_share_of_relevant_images_and_within_reach():
    queries = pl.DataFrame({"label": ["a", "b", None], "sha256": ["q", "r", "s"]})
    labels = ["a"] * 30 + ["b"] * 50 + ["c"] * 20
    database = pl.DataFrame({"label": labels, "sha256": [str(i) for i in range(100)]})
    assert measure_chance(QuerySet.build(queries, database, 10)) == pytest.approx(0.4)
    few = QuerySet.build(queries, database.head(5), 10)
    assert measure_chance(few) == 1.0
    assert measure_chance(QuerySet.build(queries.tail(1), database, 10)) is None


def test_chance_is_what_random_results_measure():
    from irgen.evaluation import metrics

    generator = np.random.default_rng(0)
    queries = pl.DataFrame({"label": ["a", "b"] * 300, "sha256": [f"q{i}" for i in range(600)]})
    labels = ["a"] * 4 + ["b"] * 60 + ["c"] * 36
    database = pl.DataFrame({"label": labels, "sha256": [str(i) for i in range(100)]})
    query_set = QuerySet.build(queries, database, 10)
    ids = np.stack([generator.permutation(100)[:10] for _ in range(600)])
    measured = metrics.summarise(query_set.mark_relevant(ids), query_set.positives, (10,))
    chance = measure_chance(query_set)
    assert measured["precision_capped/10"] == pytest.approx(chance, abs=0.03)


def test_an_index_that_does_not_find_its_images_is_warned_of():
    assert "28.0%" in (warn_not_found(0.28) or "")
    assert warn_not_found(FINDS_ITSELF) is None and warn_not_found(None) is None


def test_a_training_that_ended_early_names_its_setting():
    assert "retriever.steps" in (warn_still_rising("retriever", {"validation_rising": 1.0}) or "")
    assert warn_still_rising("retriever", {"validation_rising": 0.0}) is None
    assert warn_still_rising("retriever", {"validation_rising": None}) is None
    assert warn_still_rising("retriever", {}) is None


def test_all_warnings_come_together_the_gravest_first(defaults):
    outcome = Outcome(
        served={"precision_capped/10": 0.1, "finds_itself": 0.5},
        chance=0.1,
        trainings={"tokenizer": {"validation_rising": 1}, "retriever": {"validation_rising": 1}},
    )
    photos = replace(defaults.download, source="../photos")
    warnings = list_warnings(outcome, defaults.encoder, photos)
    assert len(warnings) == 5 and warnings[0].startswith("No encoder")
    assert format_warnings(warnings).count("WARNING: ") == 5
