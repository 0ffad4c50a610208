"""``irgen release``: serve the pipeline's index, if it is good enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands.options import json_option, note, params_option, root_option, settings_file
from irgen.commands.project_index import note_if_served_is_not_searched
from irgen.params import load

if TYPE_CHECKING:
    from irgen.releases.promote import Outcome

KEPT_BACK = 3  # exit status: the gate or a rollback keeps the index back


@click.command()
@click.option("--force", is_flag=True, help="Release it whatever the gate says.")
@click.option(
    "--accept-removals",
    "accepts_removals",
    is_flag=True,
    help="Release nothing, but let the images go that the last update asked about: the next update "
    "removes them.",
)
@json_option
@params_option
@root_option
def release(
    force: bool, accepts_removals: bool, as_json: bool, params: Path | None, root: Path
) -> int:
    """Make the pipeline's index, data/index, a release.

    It is served if the gate finds it no worse than the served release on the same queries (gate in
    params.yaml). Else it is kept as a candidate. If the bucket or MLflow did not answer, run the
    command again: it copies the release to the bucket and registers it in MLflow.

    An update that would take too many images away stops and asks. --accept-removals lets those
    images go that it named, and no others.

    Exit status: 0 if the index is served, 3 if it is kept as a candidate.
    """
    if accepts_removals:
        if force:
            raise click.UsageError(
                "--accept-removals releases nothing, so there is nothing to --force"
            )
        print(accept_removals(root, as_json))
        return 0
    from irgen.releases import promote

    outcome = promote.release_index(root, load(settings_file(root, params)), force=force)
    print_outcome(outcome, describe_outcome(outcome), as_json)
    note_if_served_is_not_searched(root)
    return 0 if outcome.is_served else KEPT_BACK


def accept_removals(root: Path, as_json: bool) -> str:
    """Accept the removals that the last update asked about; return what to print. Raise
    ReleaseError if none waits."""
    from irgen.catalog import guard
    from irgen.files.workspace import Workspace
    from irgen.tracking.locations import find_project

    folder = Workspace.at(root).stage("download")
    summary = guard.accept(folder, find_project(root) / ".cache" / "download")
    if as_json:
        return json.dumps(summary)
    return (
        f"Accepted: {guard.describe(summary)}. The next update removes them and releases the "
        "index: the flow update, or by hand dvc repro and irgen release. Others that go meanwhile "
        "are asked about again."
    )


def print_outcome(outcome: Outcome, sentence: str, as_json: bool) -> None:
    """Print the outcome of a release, as ``sentence`` or as JSON, and its errors on stderr."""
    for error in outcome.errors:
        note(f"{error}; the next irgen release repeats it")
    print(json.dumps(outcome.to_json()) if as_json else sentence)


def describe_outcome(outcome: Outcome) -> str:
    """Describe whether the index is served, and why."""
    from irgen.releases import live

    verdict = outcome.to_json()["verdict"]
    version, reason = outcome.release.version, verdict["why"]
    if "live" in verdict["figures"]:
        reason += f"; {live.format_live(verdict['figures']['live'])}"
    if not outcome.is_served:
        served = outcome.champion
        state = f"release {served.version} is served" if served else "none is served"
        return f"Release {version} is kept as a candidate, {state}: {reason}"
    if outcome.new:
        return f"Release {version} is served now: {reason}"
    return f"Release {version} is served already."
