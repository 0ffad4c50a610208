"""When figures are called drift, by hand; and how that is told."""

import json
from dataclasses import fields, replace

import pytest

from irgen.evaluation import drift_verdict
from irgen.evaluation.drift_verdict import Revisions
from irgen.params import Drift

SETTINGS = Drift(
    minimum_images=50,
    minimum_share=0.02,
    minimum_held_out=20,
    residual_ratio=1.5,
    unseen_codes=0.05,
    unseen_prefixes=0.2,
    unseen_labels=0.1,
    group_growth=1.5,
    collisions=0.1,
    precision_drop=0.2,
)
FOUND = {
    "images/trained": 1000,
    "images/held_out": 100,
    "images/database": 1200,
    "images/new": 200,
    "residual/held_out/level_1": 0.5,
    "residual/held_out/level_2": 0.2,
    "residual/new/level_1": 0.5,
    "residual/new/level_2": 0.22,
    "unseen/codes/new/level_1": 0.0,
    "unseen/codes/new/level_2": 0.01,
    "unseen/prefixes/held_out/level_1": 0.0,
    "unseen/prefixes/held_out/level_2": 0.3,
    "unseen/prefixes/new/level_1": 0.0,
    "unseen/prefixes/new/level_2": 0.35,
    "unseen/labels": 0.04,
    "collisions/held_out": 0.08,
    "collisions/new": 0.1,
    "code_groups/before/mean": 4.0,
    "code_groups/now/mean": 5.4,
    "quality/old/queries": 90,
    "quality/old/precision_capped/10": 0.9,
    "quality/new/queries": 30,
    "quality/new/precision_capped/10": 0.85,
}
WHEN = Revisions(now=3, trained=1)
BEYOND = {  # for each signal, figures that put it beyond its limit and leave the others within
    "residual_ratio": {"residual/new/level_2": 0.31},
    "unseen_codes": {"unseen/codes/new/level_1": 0.06},
    "unseen_prefixes": {"unseen/prefixes/new/level_1": 0.21},
    "unseen_labels": {"unseen/labels": 0.11},
    "group_growth": {"code_groups/now/mean": 7.3},
    "collisions": {"collisions/new": 0.19},
    "precision_drop": {"quality/new/precision_capped/10": 0.69},
}


def signals(**changes):
    return drift_verdict.compute_signals(FOUND | changes, 2, 10, SETTINGS)


def judged(settings=SETTINGS, **changes):
    figures = FOUND | changes
    return drift_verdict.judge(
        figures, drift_verdict.compute_signals(figures, 2, 10, settings), settings, WHEN
    )


def test_the_signals_are_those_worked_out_by_hand():
    assert signals() == pytest.approx(
        {
            "residual_ratio": 1.1,
            "unseen_codes": 0.01,
            "unseen_prefixes": 0.05,
            "unseen_labels": 0.04,
            "group_growth": 5.4 / 4 / 1.2,
            "collisions": 0.02,
            "precision_drop": 0.05,
        }
    )


def test_every_signal_has_a_limit_among_the_parameters_and_every_limit_a_signal():
    others = {"minimum_images", "minimum_share", "minimum_held_out"}
    assert (
        {field.name for field in fields(Drift)} - others
        == set(drift_verdict.SIGNALS)
        == set(signals())
    )


def test_figures_within_their_limits_are_no_drift():
    verdict = judged()
    assert not verdict.drifted and not verdict.exceeded and verdict.enough
    assert (verdict.new, verdict.revision, verdict.trained) == (200, 3, 1)


@pytest.mark.parametrize("name", BEYOND)
def test_one_signal_beyond_its_limit_is_drift_and_is_named_with_value_and_limit(name):
    verdict = judged(**BEYOND[name])
    assert verdict.drifted
    (only,) = verdict.exceeded
    assert (only.name, only.threshold) == (name, getattr(SETTINGS, name))
    assert only.value > only.threshold
    assert f"training.yaml to {verdict.revision}" in drift_verdict.explain(verdict)


@pytest.mark.parametrize("name", BEYOND)
def test_a_signal_at_its_very_limit_is_within_it(name):
    at_limit = {name: getattr(SETTINGS, name)}
    assert not drift_verdict.judge(FOUND, at_limit, SETTINGS, WHEN).drifted


@pytest.mark.parametrize(
    ("new", "trained", "enough"),
    [(49, 100, False), (50, 100, True), (50, 2500, True), (50, 2501, False), (200, 9999, True)],
)
def test_fewer_new_images_than_the_minimum_count_or_share_are_never_drift(new, trained, enough):
    changes = {"images/new": new, "images/trained": trained, "unseen/labels": 1.0}
    verdict = judged(**changes)
    assert verdict.enough == verdict.drifted == enough
    assert bool(verdict.exceeded) == enough
    assert ("too few" in drift_verdict.explain(verdict)) != enough


def test_too_few_held_out_images_or_queries_tell_nothing_and_the_rest_still_does():
    few = signals(**{"images/held_out": 19})
    assert set(signals()) - set(few) == {"residual_ratio", "unseen_prefixes", "collisions"}
    for group in ("old", "new"):
        assert set(signals()) - set(signals(**{f"quality/{group}/queries": 19})) == {
            "precision_drop"
        }


def test_without_a_new_image_nothing_is_judged():
    assert signals(**{"images/new": 0}) == {}
    verdict = judged(**{"images/new": 0})
    assert not verdict.drifted
    assert drift_verdict.explain(verdict).startswith("No image has joined")


def test_a_database_of_new_images_alone_has_no_growth():
    assert "group_growth" not in signals(**{"images/new": 1200})


def test_held_out_images_without_any_residual_make_a_large_ratio_and_not_an_error():
    assert signals(**{"residual/held_out/level_2": 0.0})["residual_ratio"] > 1000


def test_a_verdict_survives_json():
    verdict = judged(**BEYOND["unseen_labels"], **BEYOND["collisions"])
    record = json.loads(json.dumps(verdict.to_json()))
    assert record["drifted"] is True and record["new"] == 200 and record["revision"] == 3
    assert [each["name"] for each in record["exceeded"]] == ["unseen_labels", "collisions"]
    assert drift_verdict.verdict_from_json(record) == verdict


def test_the_table_says_of_each_signal_its_value_its_limit_and_whether_it_is_too_much():
    verdict = judged(**BEYOND["unseen_labels"])
    values = signals(**BEYOND["unseen_labels"])
    rows = drift_verdict.tabulate_signals(values, verdict, SETTINGS)
    assert len(rows) == len(drift_verdict.SIGNALS)
    assert [row for row in rows if row[3]] == [
        (drift_verdict.SIGNALS["unseen_labels"][0], "11.0%", "10.0%", True)
    ]
    fewer = replace(verdict, exceeded=())
    assert len(drift_verdict.tabulate_signals({"residual_ratio": 1.1}, fewer, SETTINGS)) == 1
