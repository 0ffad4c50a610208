"""Select the few numbers that say how well the index is searched."""

from typing import Any

SERVED = ("index", "generative")  # the method that counts: the first that was measured
PREFERRED_CUTOFF = 10
DETAILS = {"bytes_per_image", "precision_capped", "precision_irgen", "recall"}


def summarize(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the key metrics of ``data/evaluate/metrics.json``: those of the served index, at one
    cut-off (10, else the next smaller one). Without an index they are those of the generative
    search. Numbers outside a method belong to them. Precision comes first.

    >>> summarize({"index": {"precision/1": 0.9, "precision/10": 0.8, "recall/10": 0.1}})
    {'precision_at_10': 0.8}
    """
    values = {name: value for name, value in metrics.items() if not isinstance(value, dict)}
    values |= metrics.get(find_served(metrics), {})
    cutoff = _choose_cutoff(values)
    selected = {}
    for name, value in sorted(
        values.items(), key=lambda item: not item[0].startswith("precision/")
    ):
        family, _, depth = name.partition("/")
        if family not in DETAILS and depth in ("", "R", str(cutoff)):
            selected[f"{family}_at_{depth}" if depth else family] = float(value)
    return selected


def find_served(metrics: dict[str, Any]) -> str:
    """Return the method whose quality counts: ``index``, else ``generative``; "" without both."""
    return next((name for name in SERVED if name in metrics), "")


def _choose_cutoff(values: dict[str, Any]) -> int:
    depths = {int(depth) for name in values if (depth := name.rpartition("/")[2]).isdigit()}
    return max((depth for depth in depths if depth <= PREFERRED_CUTOFF), default=min(depths or {1}))
