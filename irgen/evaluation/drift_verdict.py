"""Whether new images differ too much from those the training knew: figures of drift and limits.

The limits in params.yaml lie between what new images of known classes showed and what others did.
Measured on the digits, clothing-224 and omniglot-small with 2 of 10, 2 of 10 and 48 of 242 classes
kept from the training, in 150 draws of 50 new images:

                   known classes    classes kept back   limit
  residual_ratio    0.51 … 1.73       1.91 … 4.20        1.8
  unseen_entries    0                 0                  0.05
  unseen_prefixes   0 … 0.19          0.01 … 0.57        0.25
  bucket_growth     0.95 … 1.01       0.95 … 0.99        1.5
  collisions       −0.04 … 0.10       0.00 … 0.32        0.15

So far chance takes 50 images; with 200, known classes stay within 0.77 … 1.23 of residual_ratio.
Classes kept back are told by their labels alone as long as they are less than about a third of the
new images (at 30% the ratio is 1.35 … 1.89). Known classes in a new guise are told without labels:
turned by 90° the ratio is 2.4 or more in all three sets; inverted 2.3 to 7.5, but 1.1 for the
clothes; and omniglot's inverted drawings, most of them of one code, make the buckets grow 70-fold.
On the digits, precision_drop is 0.02 with known classes alone, 0.10 with 15% of unknown ones; with
51% all queries' precision/10 was 0.816, and 0.948 when the models had been trained again.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from irgen.params import Drift

NOTHING = 1e-6  # a residual this small is a rounding error
SIGNALS = {  # what is judged, by the name of its limit in params.yaml: words, and how it is written
    "residual_ratio": ("detail that their codes lose, over what held-out images lose", "{:.2f}×"),
    "unseen_entries": ("share with a codebook entry that no training image has", "{:.1%}"),
    "unseen_prefixes": (
        "share whose code begins as no training image's, less that of held-out images",
        "{:+.1%}",
    ),
    "unseen_labels": ("share with a label that no training image has", "{:.1%}"),
    "bucket_growth": ("growth of buckets (images of one code), over the database's", "{:.2f}×"),
    "collisions": (
        "share with the code of a training image of another label, less that of held-out images",
        "{:+.1%}",
    ),
    "precision_drop": ("precision that new queries lose against old ones", "{:+.1%}"),
}


@dataclass(frozen=True, kw_only=True)
class Revisions:
    """Of the source: ``now``, and the one whose images the models were ``trained`` on."""

    now: int
    trained: int


@dataclass(frozen=True, kw_only=True)
class Exceeded:
    """A signal beyond its limit."""

    name: str
    value: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``drifted``, and why: the signals ``exceeded``. ``new`` images since the training, of which
    ``enough`` says whether they are as many as a judgement takes; ``revision`` of the source, and
    the ``trained`` one."""

    drifted: bool
    exceeded: tuple[Exceeded, ...]
    new: int
    enough: bool
    revision: int
    trained: int

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self) | {"exceeded": [asdict(each) for each in self.exceeded]}


def verdict_of(told: Mapping[str, Any]) -> Verdict:
    """The inverse of ``Verdict.to_json``."""
    exceeded = tuple(Exceeded(**each) for each in told["exceeded"])
    return Verdict(**{**told, "exceeded": exceeded})


def signals(
    found: Mapping[str, float], levels: int, cutoff: int, settings: Drift
) -> dict[str, float]:
    """What is judged, by the names of ``SIGNALS``, of the figures that ``measure`` and ``quality``
    found; ``levels`` M of the codes, precision at ``cutoff``. What cannot be told is left out:
    everything without a new image, and all that a comparison with too few would tell."""
    if not found["images/new"]:
        return {}
    each = [f"level_{m + 1}" for m in range(levels)]
    known = {
        "unseen_entries": max(found[f"unseen/entries/new/{m}"] for m in each),
        "unseen_labels": found["unseen/labels"],
    }
    if found["images/new"] < found["images/database"]:
        larger = found["images/database"] / (found["images/database"] - found["images/new"])
        known["bucket_growth"] = found["buckets/now/mean"] / found["buckets/before/mean"] / larger
    if found["images/held_out"] >= settings.minimum_held_out:
        usual = found[f"residual/held_out/{each[-1]}"]
        known["residual_ratio"] = found[f"residual/new/{each[-1]}"] / max(usual, NOTHING)
        known["unseen_prefixes"] = max(
            found[f"unseen/prefixes/new/{m}"] - found[f"unseen/prefixes/held_out/{m}"] for m in each
        )
        known["collisions"] = found["collisions/new"] - found["collisions/held_out"]
    queries = [found[f"quality/{group}/queries"] for group in ("old", "new")]
    if min(queries) >= settings.minimum_held_out:
        old, new = (found[f"quality/{g}/precision_capped/{cutoff}"] for g in ("old", "new"))
        known["precision_drop"] = old - new
    return known


def limits(settings: Drift) -> dict[str, float]:
    """The limit of each signal."""
    return {name: getattr(settings, name) for name in SIGNALS}


def judge(
    found: Mapping[str, float], known: Mapping[str, float], settings: Drift, revisions: Revisions
) -> Verdict:
    """Whether any of the signals ``known`` is beyond its limit; too few new images are never drift.
    ``found``: the figures, for the counts in them."""
    new, trained = int(found["images/new"]), found["images/trained"]
    enough = new >= max(settings.minimum_images, settings.minimum_share * trained)
    exceeded = [
        Exceeded(name=name, value=known[name], threshold=limit)
        for name, limit in limits(settings).items()
        if enough and known.get(name, limit) > limit
    ]
    return Verdict(
        drifted=bool(exceeded),
        exceeded=tuple(exceeded),
        new=new,
        enough=enough,
        revision=revisions.now,
        trained=revisions.trained,
    )


def words(verdict: Verdict) -> str:
    """The verdict in one or two plain sentences; what is to be done about it, if anything."""
    if not verdict.new:
        return "No image has joined the database since the models were trained."
    came = (
        f"{verdict.new:,} images have joined the database since the models were trained "
        f"(on revision {verdict.trained} of the source; it is at {verdict.revision})."
    )
    if not verdict.enough:
        return f"{came} They are too few to tell whether they are of another kind."
    if not verdict.drifted:
        return f"{came} They are like the images the models know: every figure is within its limit."
    over = "; ".join(
        f"{SIGNALS[each.name][0]}: {SIGNALS[each.name][1].format(each.value)}, "
        f"allowed {SIGNALS[each.name][1].format(each.threshold)}"
        for each in verdict.exceeded
    )
    return (
        f"{came} They are unlike the images the models know ({over}): train again by setting "
        f"revision in training.yaml to {verdict.revision}."
    )


def table(
    known: Mapping[str, float], verdict: Verdict, settings: Drift
) -> list[tuple[str, str, str, bool]]:
    """A row a signal that is known: in words, its value, its limit, and whether it is exceeded."""
    over = {each.name for each in verdict.exceeded}
    return [
        (says, form.format(known[name]), form.format(getattr(settings, name)), name in over)
        for name, (says, form) in SIGNALS.items()
        if name in known
    ]
