"""Say when and in what time the results were made, and where MLflow and the releases have them."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from irgen.commands import ui
from irgen.errors import IrgenError
from irgen.releases import store
from irgen.tracking import locations, mlflow_store, provenance, run_log

LONGEST = 3  # stages whose time is told
Fact = tuple[str, str, str]  # name, text, address or ""


def describe_build(root: Path, stages: list[str]) -> list[Fact]:
    """Return facts for the top of the report: date, time of the ``stages`` as far as it is known
    here, MLflow's run and the served release."""
    facts = [("Made", f"{datetime.now():%d %B %Y, %H:%M}", "")]
    seconds = read_stage_seconds(root, stages)
    if seconds:
        longest = sorted(seconds, key=lambda stage: -seconds[stage])[:LONGEST]
        parts = ", ".join(f"{stage} {format_duration(seconds[stage])}" for stage in longest)
        facts.append(("Time to build", f"{format_duration(sum(seconds.values()))}: {parts}", ""))
    return facts + _describe_run(root) + _describe_release(root)


def read_stage_seconds(root: Path, stages: list[str]) -> dict[str, float]:
    """Return how many seconds each of the ``stages`` took when it last ran to its end."""
    seconds: dict[str, tuple[int, float]] = {}  # by stage: its end, in ms since 1970, and seconds
    for path in locations.run_logs(root).glob("*/*.jsonl"):
        stage = path.stem.partition("-")[0]
        with suppress(OSError, ValueError):  # a run log that was just deleted, or is damaged
            records = run_log.read(path) if stage in stages else []
            if records and records[-1].get("status") == "FINISHED":
                end = records[-1]["time"]
                run = (end, (end - records[0]["time"]) / 1000)
                seconds[stage] = max(seconds.get(stage, run), run)
    return {stage: duration for stage, (_, duration) in seconds.items()}


def format_duration(seconds: float) -> str:
    """Format a time for people.

    >>> [format_duration(seconds) for seconds in (0.2, 59, 90, 7260)]
    ['1 s', '59 s', '2 min', '2 h 1 min']
    """
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _describe_run(root: Path) -> list[Fact]:
    """Link the build's run, if it is sent to MLflow already. Without a server the link leads to the
    pages that ``make ui`` serves."""
    build = run_log.safe_name(provenance.build_key())
    for path in sorted((locations.run_logs(root) / build).glob("*.jsonl")):
        if ids := run_log.read_state(path).get("build"):
            if page := mlflow_store.run_page(root, *ids):
                return [("MLflow", "run of this build", page)]
            page = f"http://127.0.0.1:{ui.PORT}/{mlflow_store.run_link(*ids)}"
            return [("MLflow", "run of this build, while make ui runs", page)]
    return []


def _describe_release(root: Path) -> list[Fact]:
    """Link the release that was served when the report was written."""
    with suppress(IrgenError):
        champion = store.read_champion(store.path_in(root))
        if champion is not None:
            created = datetime.fromtimestamp(champion.created / 1000)
            text = f"release {champion.version} of {created:%d %B %Y, %H:%M}"
            return [("Served release", text, f"../releases/{champion.name}/release.json")]
    return []
