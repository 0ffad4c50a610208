"""Figures of a candidate on live searches: ``irgen serve --candidate`` notes them for the gate.

Every process that serves writes sums to a file of its own in ``.cache/serve/candidate``, so that
nobody waits for another one; they are added up when they are read.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from irgen.evaluation.gate import Verdict
from irgen.files.records import write_json
from irgen.files.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over searches. ``answered`` by the candidate for clients; ``compared``: asked beside the
    champion; ``failed``: errors of the candidate where the champion had none. ``overlap``: of the
    first ten hits, the share that both have, and ``seconds`` and ``champion_seconds`` of the search
    itself: each summed over the compared ones."""

    answered: int = 0
    compared: int = 0
    failed: int = 0
    overlap: float = 0.0
    seconds: float = 0.0
    champion_seconds: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        """Return the sums over the searches of both.

        >>> (Sums(answered=2) + Sums(answered=1, failed=1)).failed
        1
        """
        names = [item.name for item in fields(Sums)]
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def describe(self) -> dict[str, Any]:
        """Return counts and means, as the verdict of the gate holds them.

        >>> Sums(compared=4, overlap=3.0).describe()["overlap@10"]
        0.75
        """
        count = max(self.compared, 1)
        return {
            "answered": self.answered,
            "compared": self.compared,
            "failed": self.failed,
            "overlap@10": self.overlap / count,
            "milliseconds": 1e3 * self.seconds / count,
            "champion_milliseconds": 1e3 * self.champion_seconds / count,
        }


def identify(index: Path) -> str:
    """Return a text that is the same for an index and a copy of its files. Raise IndexingError if
    there is none."""
    from irgen.index import copying  # takes seconds, for releases that nothing was tried of

    state = copying.state(index)
    return f"{state['owner'][:16]}-{state['revision']}"


def write(root: Path, index: str, process: str, sums: Sums) -> None:
    """Write the sums of one process, all that it has counted."""
    write_json(_folder(root) / f"{index}.{process}.json", asdict(sums))


def read(root: Path, index: Path) -> Sums:
    """Return the sums over all processes that have tried the index at ``index``."""
    folder = _folder(root)
    if not folder.is_dir():  # nothing was tried
        return Sums()
    return sum(_read_all(folder.glob(f"{identify(index)}.*.json")), Sums())


def _read_all(paths: Iterable[Path]) -> list[Sums]:
    parts = []
    for path in paths:
        with suppress(OSError, ValueError, TypeError):  # damaged: another process's still count
            parts.append(Sums(**json.loads(path.read_text())))
    return parts


def judge_live(verdict: Verdict, sums: Sums) -> Verdict:
    """Return the verdict with the figures of live searches, if there were any; failed if the
    candidate failed on one of them."""
    if sums == Sums():
        return verdict
    verdict = replace(verdict, figures=verdict.figures | {"live": sums.describe()})
    if not sums.failed:
        return verdict
    count = sums.answered + sums.compared + sums.failed
    why = (
        f"{sums.failed:,} of {count:,} live searches failed on the candidate (irgen serve "
        "--candidate), and not on the served index: the log of the service says why"
    )
    return replace(verdict, passed=False, why=why)


def format_live(figures: dict[str, Any]) -> str:
    """Format the figures of live searches for people.

    >>> format_live(Sums(compared=10, overlap=9, seconds=0.2, champion_seconds=0.1).describe())
    'live searches: 10 compared, of the first ten hits 90% the same, 20 ms (served index: 10 ms)'
    """
    parts = [f"{figures[name]:,} {name}" for name in ("answered", "compared", "failed")]
    parts = [part for part in parts if not part.startswith("0 ")]
    if figures["compared"]:
        parts.append(
            f"of the first ten hits {figures['overlap@10']:.0%} the same, "
            f"{figures['milliseconds']:.0f} ms (served index: "
            f"{figures['champion_milliseconds']:.0f} ms)"
        )
    return f"live searches: {', '.join(parts)}"


def _folder(root: Path) -> Path:
    return Workspace.at(root).cache / "serve" / "candidate"
