"""Level of a release: its gain over the first release, summed over the releases between them.

The gate allows each release a small loss. By their levels it finds the best of the recent releases,
so that small losses do not add up.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from irgen.releases.release import Release


def read_level(release: Release, metric: str) -> float | None:
    """Return the level of a release; None if the gate judged it by another metric, or not at
    all."""
    figures = (release.verdict or {}).get("figures") or {}
    return figures.get("level", 0.0) if figures.get("metric") == metric else None


def compute_level(figures: Mapping[str, Any], champion: Release | None) -> float:
    """Return the level of a candidate with these figures of the gate."""
    level = None if champion is None else read_level(champion, figures["metric"])
    return (level or 0.0) + figures.get("difference", 0.0)


def find_best(releases: Iterable[Release], champion: Release) -> Release | None:
    """Return the release of the highest level, or None if the champion has it.

    Only releases that were served count. If a person served one against the gate's verdict, by
    force or by a rollback to a rejected release, those before the last such release do not count.
    """
    metric = ((champion.verdict or {}).get("figures") or {}).get("metric", "")
    best, highest = None, read_level(champion, metric)
    if highest is None or _is_by_hand(champion):
        return None
    earlier = [old for old in releases if old.version < champion.version]
    for old in sorted(earlier, key=lambda old: old.version, reverse=True):
        level = read_level(old, metric)
        if old.state == "released" and level is not None and level > highest:
            best, highest = old, level
        if _is_by_hand(old):
            break
    return best


def _is_by_hand(release: Release) -> bool:
    verdict = release.verdict or {}
    return release.state == "released" and (
        release.basis == "force" or not verdict.get("passed", True)
    )
