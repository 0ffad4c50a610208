"""Judge drift: do new images differ too much from the training images?

Each limit lies between the figures of new images of known classes and those of new images of
unknown ones. Measured on the digits, clothing-224 and omniglot-small, with 2 of 10, 2 of 10 and 48
of 242 classes kept from training, in 150 draws of 50 new images:

                   known classes    unknown classes     limit
  residual_ratio    0.51 … 1.73       1.91 … 4.20        1.8
  unseen_codes      0                 0                  0.05
  unseen_prefixes   0 … 0.19          0.01 … 0.57        0.25
  group_growth      0.95 … 1.01       0.95 … 0.99        1.5
  collisions       −0.04 … 0.10       0.00 … 0.32        0.15

With 200 new images, residual_ratio of known classes stays within 0.77 … 1.23. If less than about a
third of the new images are of new classes, only their labels show it (at 30% the ratio is
1.35 … 1.89). Changed images of known classes show without labels: turned by 90°, the ratio is 2.4
or more in all three sets; inverted, 2.3 to 7.5, but 1.1 for the clothes. Most of omniglot's
inverted drawings get one code, so code groups grow 70-fold. On the digits, precision_drop is 0.02
with known classes and 0.10 with 15% of new ones. With 51% of new ones, precision/10 of all queries
was 0.816, and 0.948 after a retrain.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from irgen.params import Drift

SMALLEST_RESIDUAL = 1e-6  # a smaller one is a rounding error
SIGNALS = {  # by the name of its limit in the settings: a description, and the format of a value
    "residual_ratio": ("detail lost by their codes, relative to held-out images", "{:.2f}×"),
    "unseen_codes": ("share with a code that no training image has", "{:.1%}"),
    "unseen_prefixes": (
        "share whose first codes no training image has, minus that of held-out images",
        "{:+.1%}",
    ),
    "unseen_labels": ("share with a label that no training image has", "{:.1%}"),
    "group_growth": ("growth of code groups, relative to the database", "{:.2f}×"),
    "collisions": (
        "share with the code of a training image of another label, minus that of held-out images",
        "{:+.1%}",
    ),
    "precision_drop": ("precision of new queries below that of old ones", "{:+.1%}"),
}


@dataclass(frozen=True, kw_only=True)
class Revisions:
    """Revisions of the source: ``now``, and the one that the models were ``trained`` on."""

    now: int
    trained: int


@dataclass(frozen=True, kw_only=True)
class Exceeded:
    """A signal above its limit."""

    name: str
    value: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict on drift: whether the images ``drifted``, and the signals ``exceeded``. ``new``:
    number of images since training; ``enough``: they suffice to judge; ``revision`` of the source
    now, and the ``trained`` one."""

    drifted: bool
    exceeded: tuple[Exceeded, ...]
    new: int
    enough: bool
    revision: int
    trained: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"exceeded": [asdict(signal) for signal in self.exceeded]}


def verdict_from_json(values: Mapping[str, Any]) -> Verdict:
    """Invert ``Verdict.to_json``."""
    exceeded = tuple(Exceeded(**signal) for signal in values["exceeded"])
    return Verdict(**{**values, "exceeded": exceeded})


def compute_signals(
    figures: Mapping[str, float], levels: int, cutoff: int, settings: Drift
) -> dict[str, float]:
    """Return the signals by the names of ``SIGNALS``, from the figures of ``drift.py``.

    ``levels``: M; precision is taken at ``cutoff``. A signal is missing if there are too few images
    to measure it, or no labels that it needs; without new images all are.
    """
    if not figures["images/new"]:
        return {}
    names = [f"level_{m + 1}" for m in range(levels)]
    signals = {"unseen_codes": max(figures[f"unseen/codes/new/{m}"] for m in names)}
    labelled = "unseen/labels" in figures
    if labelled:
        signals["unseen_labels"] = figures["unseen/labels"]
    if figures["images/new"] < figures["images/database"]:
        larger = figures["images/database"] / (figures["images/database"] - figures["images/new"])
        signals["group_growth"] = (
            figures["code_groups/now/mean"] / figures["code_groups/before/mean"] / larger
        )
    if figures["images/held_out"] >= settings.minimum_held_out:
        usual = figures[f"residual/held_out/{names[-1]}"]
        signals["residual_ratio"] = figures[f"residual/new/{names[-1]}"] / max(
            usual, SMALLEST_RESIDUAL
        )
        signals["unseen_prefixes"] = max(
            figures[f"unseen/prefixes/new/{m}"] - figures[f"unseen/prefixes/held_out/{m}"]
            for m in names
        )
        if labelled:
            signals["collisions"] = figures["collisions/new"] - figures["collisions/held_out"]
    queries = [figures[f"quality/{group}/queries"] for group in ("old", "new")]
    if min(queries) >= settings.minimum_held_out:
        old, new = (figures[f"quality/{g}/precision_capped/{cutoff}"] for g in ("old", "new"))
        signals["precision_drop"] = old - new
    return signals


def judge(
    figures: Mapping[str, float],
    signals: Mapping[str, float],
    settings: Drift,
    revisions: Revisions,
) -> Verdict:
    """Judge whether any signal is above its limit. Too few new images are never drift. ``figures``
    hold the counts of images."""
    new, trained = int(figures["images/new"]), figures["images/trained"]
    enough = new >= max(settings.minimum_images, settings.minimum_share * trained)
    exceeded = [
        Exceeded(name=name, value=signals[name], threshold=getattr(settings, name))
        for name in SIGNALS
        if enough and name in signals and signals[name] > getattr(settings, name)
    ]
    return Verdict(
        drifted=bool(exceeded),
        exceeded=tuple(exceeded),
        new=new,
        enough=enough,
        revision=revisions.now,
        trained=revisions.trained,
    )


def explain(verdict: Verdict) -> str:
    """Return the verdict and the remedy in a few sentences."""
    if not verdict.new:
        return "No image has joined the database since the models were trained."
    joined = (
        f"{verdict.new:,} images have joined the database since the models were trained "
        f"(on revision {verdict.trained} of the source; it is at {verdict.revision})."
    )
    if not verdict.enough:
        return f"{joined} They are too few to judge."
    if not verdict.drifted:
        return f"{joined} They are like the training images: every figure is within its limit."
    over = "; ".join(
        f"{SIGNALS[signal.name][0]}: {SIGNALS[signal.name][1].format(signal.value)}, "
        f"allowed {SIGNALS[signal.name][1].format(signal.threshold)}"
        for signal in verdict.exceeded
    )
    return (
        f"{joined} They differ too much from the training images ({over}). To train again, set "
        f"revision in training.yaml to {verdict.revision}."
    )


def tabulate_signals(
    signals: Mapping[str, float], verdict: Verdict, settings: Drift
) -> list[tuple[str, str, str, bool]]:
    """Return a row a signal: its description, value, limit, and whether it is exceeded."""
    over = {signal.name for signal in verdict.exceeded}
    return [
        (text, form.format(signals[name]), form.format(getattr(settings, name)), name in over)
        for name, (text, form) in SIGNALS.items()
        if name in signals
    ]
