"""Levels tell which release all later ones have lost against."""

from dataclasses import replace

from irgen.releases import level
from irgen.releases.release import Release


def served(version: int, gain: float, **changes) -> Release:
    figures = {"metric": "precision/10", "level": gain}
    verdict = {"passed": True, "why": "", "figures": figures}
    plain = Release(version=version, bundle="ab" * 8, files={}, state="released", verdict=verdict)
    return replace(plain, **changes)


def find(*releases: Release) -> int | None:
    """Return the version of the best release; the last one is the champion."""
    best = level.find_best(releases, releases[-1])
    return None if best is None else best.version


def test_the_best_is_the_one_that_later_ones_lost_against() -> None:
    assert find(served(1, 0.0), served(2, 0.01), served(3, -0.01), served(4, -0.02)) == 2
    assert find(served(1, 0.0), served(2, 0.01)) is None  # the champion itself
    assert find(served(1, 0.0)) is None


def test_only_releases_that_were_served_count() -> None:
    rejected, withdrawn = served(2, 0.5, state="rejected"), served(3, 0.4, state="withdrawn")
    assert find(served(1, 0.0), rejected, withdrawn, served(4, -0.01)) == 1


def test_what_a_person_served_against_the_verdict_is_a_new_beginning() -> None:
    first, forced = served(1, 0.9), served(2, 0.1, basis="force")
    assert find(first, forced) is None
    assert find(first, forced, served(3, 0.05)) == 2
    verdict = {"passed": False, "figures": {"metric": "precision/10", "level": 0.1}}
    assert find(first, served(2, 0.1, verdict=verdict), served(3, 0.2)) is None


def test_levels_of_another_metric_or_without_a_verdict_say_nothing() -> None:
    other = {"passed": True, "figures": {"metric": "hit/10", "level": 0.9}}
    old = {"passed": True, "figures": {"metric": "precision/10"}}  # before there were levels
    assert find(served(1, 0.0, verdict=other), served(2, 0.0, verdict=None), served(3, 0.0)) is None
    assert find(served(1, 0.0, verdict=old), served(2, -0.01)) == 1
    assert find(served(1, 0.0), served(2, 0.0, verdict=None)) is None


def test_a_candidates_level_adds_its_gain_to_the_champions() -> None:
    figures = {"metric": "precision/10", "difference": -0.01}
    assert level.compute_level(figures, served(1, 0.03)) == 0.03 - 0.01
    assert level.compute_level({"metric": "precision/10"}, None) == 0
