"""Select the few numbers that say how well the index is searched."""

from typing import Any

from irgen.evaluation.metrics import main_cutoff

SERVED = ("index", "generative")  # the method that counts: the first that was measured
DETAILS = {"bytes_per_image", "precision_capped", "precision_irgen", "recall"}


def summarize(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the key metrics of ``data/evaluate/metrics.json``: those of the served index, at one
    cut-off. Without an index they are those of the generative search. Numbers outside a method
    belong to them. Precision comes first.

    >>> summarize({"index": {"hit/10": 1.0, "precision/1": 0.9, "precision/10": 0.8}})
    {'precision_at_10': 0.8, 'hit_at_10': 1.0}
    """
    values = {name: value for name, value in metrics.items() if not isinstance(value, dict)}
    values |= metrics.get(find_served(metrics), {})
    cutoffs = [int(part) for name in values if (part := name.rpartition("/")[2]).isdigit()]
    depths = ("", "R", str(main_cutoff(cutoffs)) if cutoffs else "")
    selected = {}
    for name in sorted(values, key=lambda name: not name.startswith("precision/")):
        family, _, depth = name.partition("/")
        if family not in DETAILS and depth in depths:
            selected[f"{family}_at_{depth}" if depth else family] = float(values[name])
    return selected


def find_served(metrics: dict[str, Any]) -> str:
    """Return the method whose quality counts: ``index``, else ``generative``; "" without both."""
    return next((name for name in SERVED if name in metrics), "")
