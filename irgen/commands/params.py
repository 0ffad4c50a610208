"""``irgen params``: all settings with their values, ranges and meanings."""

from pathlib import Path

import click

from irgen.commands.options import params_option, root_option, settings_file


@click.command()
@click.argument("section", required=False)
@root_option
@params_option
def params(section: str | None, root: Path, params: Path | None) -> None:
    """List all settings, or those of a SECTION: the value in use, what is allowed, the meaning.

    params.yaml may set any of them under the same section and name.
    """
    from irgen.evaluation.table_format import render_text
    from irgen.params import load
    from irgen.params.reference import list_settings
    from irgen.params.strict import flatten

    values = flatten(load(settings_file(root, params)))
    chosen = [s for s in list_settings() if section in (None, s.name.split(".")[0])]
    if not chosen:
        raise click.BadParameter(f"there is no section {section!r}", param_hint="SECTION")
    rows = [[s.name, str(values[s.name]), s.allowed, s.description] for s in chosen]
    print(render_text(["setting", "value", "allowed", "meaning"], rows))
