"""Name MLflow's runs, and describe builds in Markdown, which MLflow shows on a run's page."""

from dataclasses import dataclass
from datetime import datetime

SEARCH = "Search: `irgen search PHOTO --html sheet.html --open`."
NOTES = {"index": "", "generative": " (generative search: these codes are not served)"}


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """A stage's run in MLflow: its name, ``status``, ``minutes``, address and error."""

    name: str
    status: str
    minutes: float
    address: str
    error: str = ""


def format_time(milliseconds: int) -> str:
    """Return the local time of day, such as ``07:12``."""
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%H:%M")


def name_build(experiment: str, tags: dict[str, str], started: int) -> str:
    """Return the name of a build's run: the catalogue, the number of images, and when it started
    (ms since 1970) or the name of the DVC experiment.

    >>> name_build("photos", {"irgen.images": "1797", "dvc.experiment": "levels-3"}, 0)
    'photos · 1,797 images · levels-3'
    """
    count = tags.get("irgen.images", "")
    images = f"{int(count):,} images" if count else ""
    moment = tags.get("dvc.experiment") or format_time(started)
    return " · ".join(filter(None, [experiment, images, moment]))


def describe_build(
    experiment: str, tags: dict[str, str], metrics: dict[str, float], stages: list[StageRun]
) -> str:
    """Describe a build: what it is built from, the result, how to search, and its stages."""
    errors = [f"**Failed** in {run.name}: {run.error}" for run in stages if run.error]
    steps = ", ".join(
        f"[{run.name}]({run.address}) "
        + (f"{run.minutes:.1f} min" if run.status == "FINISHED" else run.status.lower())
        for run in stages
    )
    result = describe_result(metrics)
    quality = f"{result}\n\nThe report is under Artifacts: `reports/index.html`. {SEARCH}"
    parts = [
        *errors,
        describe_images(experiment, tags),
        quality if result else "",
        f"Stages: {steps}",
    ]
    return "\n\n".join(filter(None, parts))


def describe_images(experiment: str, tags: dict[str, str]) -> str:
    """Describe the catalogue by the tags of its build.

    >>> describe_images("photos", {"irgen.source": "../photos", "irgen.data_revision": "2"})
    '**photos** from `../photos`, data revision 2.'
    """
    revision = tags.get("irgen.data_revision", "0")
    text = f"**{experiment}** from `{tags.get('irgen.source', '?')}`, data revision {revision}"
    names = ("images", "labels", "searchable", "queries")
    counts = {name: int(tags.get(f"irgen.{name}", 0)) for name in names}
    labels = f"with {counts['labels']:,} labels" if counts["labels"] else "without labels"
    if counts["images"]:
        text += (
            f": {counts['images']:,} images {labels}; "
            f"{counts['searchable']:,} can be found, {counts['queries']:,} measure the quality"
        )
    return f"{text}."


def describe_result(metrics: dict[str, float]) -> str:
    """Describe the key metrics of a build in words; "" if there are none.

    >>> describe_result({"index/precision_at_10": 0.79, "index/hit_at_10": 0.95})
    '**Result**: of the first 10 results 79 % are right; hit@10 0.950.'
    """
    for method, note in NOTES.items():
        values = {
            name.partition("/")[2].replace("_at_", "@"): value
            for name, value in metrics.items()
            if name.startswith(f"{method}/")
        }
        parts = [
            f"of the first {name.partition('@')[2]} results {value:.0%} are right".replace(
                "%", " %"
            )
            if name.startswith("precision@")
            else f"{name.replace('_', ' ')} {value:.3f}"
            for name, value in sorted(values.items(), key=lambda item: "precision@" not in item[0])
        ]
        if parts:
            return f"**Result**: {'; '.join(parts)}{note}."
    return ""
