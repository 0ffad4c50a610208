"""Compare the results with the targets of the index."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from speed.ours import PRECISIONS
from speed.tables import unflattering


@dataclass(frozen=True, kw_only=True)
class Bar:
    """``measured`` is to be at least ``limit`` if ``at_least``, else at most. ``precision`` of the
    decoder, empty where none takes part."""

    name: str
    limit: float
    unit: str
    measured: float
    at_least: bool = False
    precision: str = ""

    @property
    def met(self) -> bool:
        """Scores by the number as it was measured."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def shown(self) -> list[str]:
        """Name, limit, precision, measured (cut off towards what is worse), met."""
        sign = "≥" if self.at_least else "≤"
        unit = {"×": " ×", "%": " %"}.get(self.unit, f" {self.unit}")
        measured = unflattering(self.measured, self.at_least)
        return [
            self.name,
            f"{sign} {self.limit:g}{unit}",
            self.precision or "–",
            f"{measured}{unit}",
            "yes" if self.met else "NO",
        ]

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"met": self.met}


def judge(results: dict[str, Any]) -> list[Bar]:
    """All bars, judged at the largest size that was run."""
    size = results["sizes"][-1]
    build = _only(results["build"], size=size)
    live = _only(results["live"], size=size)
    slowed = live["concurrent"]["busy"]["mean"] / live["concurrent"]["quiet"]["mean"] - 1
    change = f"{live['change']:,}"
    bars = [
        Bar(name="build the trie, slowest", limit=0.5, unit="s", measured=build["slowest"]),
        Bar(name="trie", limit=20, unit="bytes an image", measured=build["trie_bytes"]),
        Bar(name="open, cold, slowest", limit=1, unit="s", measured=live["open"]["cold"]),
    ]
    bars += _by_precision(results, size)
    return [
        *bars,
        Bar(name=f"add {change}, slowest", limit=0.2, unit="s", measured=live["add"]["slowest"]),
        Bar(
            name=f"remove {change}, slowest",
            limit=0.1,
            unit="s",
            measured=live["remove"]["slowest"],
        ),
        Bar(
            name=(
                f"search slowed by {change} added and {change} removed every {live['every']:g} s, "
                "mean (batch 64, beam 10)"
            ),
            limit=20,
            unit="%",
            measured=100 * slowed,
            precision=live["precision"],
        ),
    ]


def _by_precision(results: dict[str, Any], size: int) -> Iterator[Bar]:
    races, sizes = results["races"], results["sizes"]
    for name in PRECISIONS:
        race = races["sizes"][name]
        yield Bar(
            name=f"cost at {size:,} over that at {sizes[0]:,} (batch 64, beam 10)",
            limit=1.3,
            unit="×",
            measured=race["large"] / race["small"],
            precision=name,
        )
    for batch in (64, 1):
        for name in PRECISIONS:
            row = _only(results["search"], size=size, precision=name, batch=batch, beams=10)
            yield Bar(
                name=f"trie and beams beside the decoder's steps ({_batch(batch)}, beam 10)",
                limit=15,
                unit="%",
                measured=100 * row["parts"]["trie"] / row["parts"]["steps"],
                precision=name,
            )
    for batch, limit in ((64, 20), (1, 10)):
        race = races["exact"][str(batch)]
        for rival in ("faiss", "irgen"):
            for name in PRECISIONS:
                yield Bar(
                    name=f"faster than brute-force search of {rival} ({_batch(batch)}, beam 10)",
                    limit=limit,
                    unit="×",
                    measured=race[rival] / race[name],
                    at_least=True,
                    precision=name,
                )
    yield from _published(races["published"])


def _published(race: dict[str, float]) -> Iterator[Bar]:
    whole = race["writing"] + race["looking up"]
    for what, theirs in (("search", whole), ("search, look-up left out", race["writing"])):
        for batch in (64, 1):
            for name in PRECISIONS:
                yield Bar(
                    name=f"faster than the published {what} (beam 30, ours {_batch(batch)})",
                    limit=100,
                    unit="×",
                    measured=theirs / race[f"{name}/{batch}"],
                    at_least=True,
                    precision=name,
                )


def _batch(size: int) -> str:
    return "alone" if size == 1 else f"batch {size}"


def _only(rows: Sequence[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """Return the one row with these values."""
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, f"{len(found)} rows have {wanted}"
    return found[0]
