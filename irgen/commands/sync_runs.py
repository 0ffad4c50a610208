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
    """Return ``a=ran,b=skipped`` as a mapping; raise BadParameter for anything else."""
    pairs = [part.strip().partition("=") for part in (text or "").split(",") if part.strip()]
    if not all(outcome and stage in STAGES for stage, _, outcome in pairs):
        raise click.BadParameter(f"{text!r}: expected STAGE=ran|skipped|restored, …")
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
    help="What each stage of the build did: ran, skipped or restored.",
)
def sync_runs(
    root: Path,
    params: Path | None,
    watch: float | None,
    build: str | None,
    outcomes: dict[str, str],
) -> None:
    """Send run logs to MLflow that it does not have yet.

    With --stages, first add the stages that did not run, so that the run of the build has every
    stage and every metric. While the server is down, this is kept for the next time.
    """
    from irgen.tracking import mlflow_store, run_log, sync
    from irgen.tracking.provenance import journals, project

    home = project(root)
    if watch is not None:
        os.nice(NICENESS)
        sync.watch(home, watch)
        return
    build = build or os.environ.get("IRGEN_BUILD") or "build"
    if outcomes:
        from irgen.outcomes import complete_build
        from irgen.params import load

        settings = load(settings_file(root, params))
        complete_build(root, settings, build, outcomes)
    count = sync.publish_all(home)
    run_log.forget(journals(home), days=RUN_LOG_DAYS)
    print(f"Sent {count} runs to {mlflow_store.shown(home)}")
    if outcomes and (page := mlflow_store.build_page(home, settings.tracking.experiment, build)):
        print(page)
