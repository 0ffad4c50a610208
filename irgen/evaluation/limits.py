"""Whether new images differ too much from those the training knew: figures of drift and limits."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from irgen.params import Drift

SIGNALS = {  # what is judged, by the name of its limit in params.yaml: words, and how it is written
    "residual_ratio": ("what their codes leave over, as a multiple of training's", "{:.2f}×"),
    "unseen_entries": ("with a codebook entry that no training image has", "{:.1%}"),
    "unseen_prefixes": ("with a code that begins as no training image's, beyond chance", "{:.1%}"),
    "unseen_labels": ("with a label that no training image has", "{:.1%}"),
    "bucket_growth": ("growth of the buckets, as a multiple of the database's", "{:.2f}×"),
    "collisions": ("sharing their code with another label, more than before", "{:+.1%}"),
    "precision_drop": ("precision lost on new queries against old ones", "{:+.1%}"),
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

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self) | {"exceeded": [asdict(each) for each in self.exceeded]}


def verdict_of(told: Mapping[str, Any]) -> Verdict:
    """The inverse of ``Verdict.plain``."""
    exceeded = tuple(Exceeded(**each) for each in told["exceeded"])
    return Verdict(**{**told, "exceeded": exceeded})


def signals(found: Mapping[str, float], levels: int, cutoff: int) -> dict[str, float]:
    """What is judged, by the names of ``SIGNALS``, of the figures that ``measure`` and ``quality``
    found; ``levels`` M of the codes, precision at ``cutoff``. What cannot be told is left out."""
    if not found["images/new"]:
        return {}
    each = [f"level_{m + 1}" for m in range(levels)]
    beyond = [found[f"unseen/prefixes/{m}"] - found[f"unseen/prefixes_expected/{m}"] for m in each]
    known = {
        "unseen_entries": max(found[f"unseen/entries/{m}"] for m in each),
        "unseen_prefixes": max(beyond),
        "unseen_labels": found["unseen/labels"],
    }
    if usual := found[f"residual/trained/{each[-1]}"]:
        known["residual_ratio"] = found[f"residual/new/{each[-1]}"] / usual
    if "collisions/before" in found:
        database = found["images/database"] / (found["images/database"] - found["images/new"])
        known["bucket_growth"] = found["buckets/now/mean"] / found["buckets/before/mean"] / database
        known["collisions"] = found["collisions/new"] - found["collisions/before"]
    old, new = (f"quality/{group}/precision_capped/{cutoff}" for group in ("old", "new"))
    if old in found and new in found:
        known["precision_drop"] = found[old] - found[new]
    return known


def limits(settings: Drift) -> dict[str, float]:
    """The limit of each signal."""
    return {name: getattr(settings, name) for name in SIGNALS}


def judge(
    found: Mapping[str, float], known: Mapping[str, float], settings: Drift, revisions: Revisions
) -> Verdict:
    """Whether any of the signals ``known`` is beyond its limit. Too few new images are never
    drift, and too few new queries tell nothing of precision; ``found``: the figures, for counts."""
    new, trained = int(found["images/new"]), found["images/trained"]
    enough = new >= max(settings.minimum_images, settings.minimum_share * trained)
    few_queries = found.get("quality/new/queries", 0) < settings.minimum_queries
    exceeded = [
        Exceeded(name=name, value=known[name], threshold=limit)
        for name, limit in limits(settings).items()
        if known.get(name, limit) > limit and not (name == "precision_drop" and few_queries)
    ]
    return Verdict(
        drifted=enough and bool(exceeded),
        exceeded=tuple(exceeded) if enough else (),
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
        f"catalog.training_revision to {verdict.revision}."
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
