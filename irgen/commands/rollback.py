"""``irgen rollback``: serve an earlier release again."""

from pathlib import Path

import click

from irgen.commands.options import json_option, params_option, root_option, settings_file
from irgen.commands.project_index import note_if_served_is_not_searched
from irgen.commands.release import print_outcome


@click.command()
@click.argument("version", type=int, required=False)
@json_option
@params_option
@root_option
def rollback(version: int | None, as_json: bool, params: Path | None, root: Path) -> None:
    """Serve the release that was served before, or that VERSION.

    The release served until now is withdrawn: irgen release does not serve it again. To bring it
    back, give its VERSION to irgen rollback.
    """
    from irgen.releases import settings
    from irgen.releases.rollback import roll_back

    path = settings_file(root, params)
    outcome = roll_back(root, lambda: settings.read(path), version)
    state = "now" if outcome.new else "already"
    print_outcome(outcome, f"Release {outcome.release.version} is served {state}.", as_json)
    note_if_served_is_not_searched(root)
