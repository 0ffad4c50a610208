"""``irgen sync-runs``: send run logs to MLflow."""

import os
from pathlib import Path

import click

from irgen.commands.options import params_option, root_option, settings_file
from irgen.commands.stage import STAGES

RUN_LOG_DAYS = 14.0  # a run log that was sent is kept this long
NICENESS = 10  # of the watcher: stages come first


def parse_outcomes(
    context: click.Context, option: click.Parameter, text: str | None
) -> dict[str, str]:
    """Parse ``a=ran,b=skipped`` into a mapping; raise BadParameter for anything else."""
    pairs = [part.strip().partition("=") for part in (text or "").split(",") if part.strip()]
    if not all(outcome and stage in STAGES for stage, _, outcome in pairs):
        raise click.BadParameter(f"{text!r}: expected STAGE=ran|skipped|restored|failed, …")
    return {stage: outcome for stage, _, outcome in pairs}


@click.command("sync-runs")
@root_option
@params_option
@click.option("--watch", type=float, hidden=True)
@click.option("--build", help="The build that --stages describes. Default: $IRGEN_BUILD.")
@click.option(
    "--stages",
    "outcomes",
    callback=parse_outcomes,
    metavar="STAGE=OUTCOME,…",
    help="Outcome of each stage of the build: ran, skipped, restored or failed.",
)
def sync_runs(
    root: Path,
    params: Path | None,
    watch: float | None,
    build: str | None,
    outcomes: dict[str, str],
) -> None:
    """Send run logs to MLflow that it does not have yet.

    With --stages, first log the outcome of each stage of the build, so that the build's run has
    every stage and every metric. If the server is down, they are sent next time.
    """
    from irgen.tracking import locations, mlflow_store, run_log, sync

    if watch is not None:
        os.nice(NICENESS)
        sync.watch(root, watch)
        return
    log = log_build(root, params, build, outcomes) if outcomes else None
    count = sync.sync_all(root)
    run_log.delete_synced(locations.run_logs(root), days=RUN_LOG_DAYS)
    print(f"Synced {count} runs to {mlflow_store.format_uri(root)}")
    if log and (state := run_log.read_state(log))["done"]:
        print(mlflow_store.run_page(root, state["experiment"], state["run"]) or "")


def log_build(root: Path, params: Path | None, build: str | None, outcomes: dict[str, str]) -> Path:
    """Log the outcome of each stage of a build; return the run log."""
    from irgen.params import load
    from irgen.tracking.outcomes import log_outcomes

    build = build or os.environ.get("IRGEN_BUILD") or "build"
    return log_outcomes(root, load(settings_file(root, params)), build, outcomes)
