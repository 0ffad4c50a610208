"""``irgen token``: let a client of the service in, or out."""

from pathlib import Path

import click

from irgen.commands.options import root_option

FILE = "serve-tokens.json"


@click.command()
@click.argument("name")
@click.option("--write", is_flag=True, help="Let it add, replace and remove images, too.")
@click.option("--delete", is_flag=True, help="End the token instead.")
@root_option
def token(name: str, write: bool, delete: bool, root: Path) -> None:
    """Make a token for the client NAME and print it, once: serve-tokens.json keeps its hash alone.
    With it, the client may search; with --write, it may change the index, too. A running service
    knows it at once; an earlier token of that name ends."""
    from irgen.serve.access import tokens

    if delete:
        tokens.delete_token(root / FILE, name)
        click.echo(f"the token of {name} has ended")
        return
    click.echo(tokens.create_token(root / FILE, name, "write" if write else "read"))
