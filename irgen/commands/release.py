"""``irgen release``: serve the pipeline's index, if it is good enough."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands.options import json_option, note, params_option, root_option, settings_file
from irgen.errors import TrackingError
from irgen.params import load

if TYPE_CHECKING:
    from irgen.releases.promote import Outcome

POLL_SECONDS = 0.02
KEPT_BACK = 3  # exit status: the gate or a rollback keeps the index back


@click.command()
@click.option("--force", is_flag=True, help="Release it whatever the gate says.")
@click.option("--after", type=click.Path(path_type=Path), hidden=True)
@json_option
@params_option
@root_option
def release(force: bool, after: Path | None, as_json: bool, params: Path | None, root: Path) -> int:
    """Make the pipeline's index, data/index, a release.

    It is served if the gate finds it no worse than the served release on the same queries (gate in
    params.yaml). Else it is kept as a candidate. Run the command again to finish what could not be
    done: it copies a release to the bucket and registers it in MLflow as soon as these answer.

    Exit status: 0 if the index is served, 3 if it is kept as a candidate.
    """
    from irgen.releases import promote

    if after is not None and not _called(root, after):
        return 0
    outcome = promote.make(root, load(settings_file(root, params)), force=force)
    print_outcome(outcome, describe_outcome(outcome), as_json)
    return 0 if outcome.is_served else KEPT_BACK


def _called(root: Path, word: Path) -> bool:
    """Loads MLflow, which takes seconds, and waits for the file ``word``; False if its folder has
    gone, for then nobody will write it."""
    from irgen.tracking import mlflow_store, provenance, registry

    home = provenance.project(root)
    with suppress(TrackingError):  # told when it matters
        mlflow_store.load(home)
        with mlflow_store.alone(home):
            mlflow_store.connect(home)
        registry.rehearse()
    while not word.exists():
        if not word.parent.is_dir():
            return False
        time.sleep(POLL_SECONDS)
    return True


def print_outcome(outcome: Outcome, sentence: str, as_json: bool) -> None:
    """Print the outcome of a release, as ``sentence`` or as JSON, and on stderr what is still to be
    done."""
    for problem in outcome.troubles:
        note(f"{problem}; irgen release does the rest later")
    print(json.dumps(outcome.plain()) if as_json else sentence)


def describe_outcome(outcome: Outcome) -> str:
    """Say what became of the index."""
    version, reason = outcome.release.version, outcome.plain()["verdict"]["why"]
    if not outcome.is_served:
        served = outcome.champion
        state = f"release {served.version} is served" if served else "none is served"
        return f"Release {version} is kept as a candidate, {state}: {reason}"
    if outcome.new:
        return f"Release {version} is served now: {reason}"
    return f"Release {version} is served already."
