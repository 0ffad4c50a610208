"""Define the options that several commands share."""

from pathlib import Path

import click

from irgen.errors import escape_controls

PATH = click.Path(path_type=Path)

root_option = click.option(
    "--root", type=PATH, default=Path(), help="The project's folder. Default: the current folder."
)
params_option = click.option(
    "--params", type=PATH, help="The settings file. Default: params.yaml in the project's folder."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
read_index_option = click.option(
    "--index",
    "folder",
    type=PATH,
    metavar="FOLDER",
    help="The index. Default: index/ in the project if it exists, else the served release "
    "(releases/champion), else data/index.",
)
change_index_option = click.option(
    "--index",
    "folder",
    type=PATH,
    metavar="FOLDER",
    help="The index. Default: index/ in the project. The first change creates it: a copy of the "
    "served release, or of data/index before the first release. Neither of them ever changes.",
)
change_server_option = click.option(
    "--server",
    metavar="URL",
    help="Change the index of this service (irgen serve). If it needs a token, give one made with "
    "--write in the address: http://NAME:TOKEN@HOST:8080.",
)
EXPRESSION = (
    "an SQL expression over id and the metadata columns, such as "
    "\"label = 'shirt' AND width > 200\""
)


def settings_file(root: Path, params: Path | None) -> Path:
    """Return the path of the settings file: --params, or the project's own."""
    return params or root / "params.yaml"


def note(text: str) -> None:
    """Print a message on stderr, beside the command's answer on stdout."""
    context = click.get_current_context(silent=True)
    click.echo(f"irgen {context.info_name if context else ''}: {escape_controls(text)}", err=True)
