"""Compare the results of the benchmark of the index with its targets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from speed.generative import PRECISIONS
from speed.tables import format_cautiously

NEIGHBOURS = {64: {"faiss": 40, "irgen": 20}, 1: {"faiss": 25, "irgen": 10}}  # × by batch, rival


@dataclass(frozen=True, kw_only=True)
class Target:
    """Hold a limit and what was measured: ``measured`` must be at least ``limit`` if ``at_least``,
    else at most. ``precision`` is the decoder's, empty if no decoder takes part."""

    name: str
    limit: float
    unit: str
    measured: float
    at_least: bool = False
    precision: str = ""

    @property
    def met(self) -> bool:
        """Tell whether the number meets the limit, without rounding."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def cells(self) -> list[str]:
        """Return a row of the table: name, limit, precision, measured (rounded to the worse side),
        met."""
        sign = "≥" if self.at_least else "≤"
        unit = {"×": " ×", "%": " %"}.get(self.unit, f" {self.unit}")
        measured = format_cautiously(self.measured, self.at_least)
        return [
            self.name,
            f"{sign} {self.limit:g}{unit}",
            self.precision or "–",
            f"{measured}{unit}",
            "yes" if self.met else "NO",
        ]


def list_targets(results: dict[str, Any]) -> list[Target]:
    """Return all targets, with what was measured at the largest size."""
    size = results["sizes"][-1]
    build = _select_row(results["build"], size=size)
    live = _select_row(results["live"], size=size)
    slowdown = live["concurrent"]["busy"]["mean"] / live["concurrent"]["quiet"]["mean"] - 1
    change = f"{live['change']:,}"
    targets = [
        Target(name="build the trie, slowest", limit=0.5, unit="s", measured=build["slowest"]),
        Target(name="trie", limit=20, unit="bytes an image", measured=build["trie_bytes"]),
        Target(name="open, cold, slowest", limit=1, unit="s", measured=live["open"]["cold"]),
    ]
    targets += _list_precision_targets(results, size)
    return [
        *targets,
        Target(name=f"add {change}, slowest", limit=0.2, unit="s", measured=live["add"]["slowest"]),
        Target(
            name=f"remove {change}, slowest",
            limit=0.1,
            unit="s",
            measured=live["remove"]["slowest"],
        ),
        Target(
            name=(
                f"search slowed by {change} added and {change} removed every {live['every']:g} s, "
                "mean (batch 64, beam 10)"
            ),
            limit=20,
            unit="%",
            measured=100 * slowdown,
            precision=live["precision"],
        ),
    ]


def _list_precision_targets(results: dict[str, Any], size: int) -> Iterator[Target]:
    races, sizes = results["races"], results["sizes"]
    for name in PRECISIONS:
        race = races["sizes"][name]
        yield Target(
            name=f"cost at {size:,} over that at {sizes[0]:,} (batch 64, beam 10)",
            limit=1.3,
            unit="×",
            measured=race["large"] / race["small"],
            precision=name,
        )
    for batch in (64, 1):
        for name in PRECISIONS:
            row = _select_row(results["search"], size=size, precision=name, batch=batch, beams=10)
            yield Target(
                name=f"trie and beams beside the decoder's steps ({_batch(batch)}, beam 10)",
                limit=15,
                unit="%",
                measured=100 * row["parts"]["trie"] / row["parts"]["steps"],
                precision=name,
            )
    for batch, limits in NEIGHBOURS.items():
        race = races["neighbours"][str(batch)]
        for rival, limit in limits.items():
            for name in PRECISIONS:
                yield Target(
                    name=f"faster than brute-force search of {rival} ({_batch(batch)}, beam 10)",
                    limit=limit,
                    unit="×",
                    measured=race[rival] / race[name],
                    at_least=True,
                    precision=name,
                )
    yield from _list_published_targets(races["published"])


def _list_published_targets(race: dict[str, float]) -> Iterator[Target]:
    whole = race["writing"] + race["looking up"]
    for part, published_ms in (("search", whole), ("search, look-up left out", race["writing"])):
        for batch in (64, 1):
            for name in PRECISIONS:
                yield Target(
                    name=f"faster than the published {part} (beam 30, ours {_batch(batch)})",
                    limit=100,
                    unit="×",
                    measured=published_ms / race[f"{name}/{batch}"],
                    at_least=True,
                    precision=name,
                )


def _batch(size: int) -> str:
    return "alone" if size == 1 else f"batch {size}"


def _select_row(rows: Sequence[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """Return the one row with these values."""
    selected = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(selected) == 1, f"{len(selected)} rows have {wanted}"
    return selected[0]
