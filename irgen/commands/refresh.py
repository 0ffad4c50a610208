"""``irgen refresh``: bring the project's own index up to date with what is served now."""

from pathlib import Path

import click

from irgen.commands.options import root_option
from irgen.commands.project_index import choose_device, describe_refresh
from irgen.releases import own_index


@click.command()
@click.option(
    "--drop-missing",
    is_flag=True,
    help="Leave out added images whose files are missing. Without it, they stop the refresh.",
)
@root_option
def refresh(drop_missing: bool, root: Path) -> None:
    """Bring index/ up to date with what is served now, and keep what you changed by hand.

    Afterwards index/ holds the images of the served release (of data/index before the first
    release), and those that you added or replaced; those that you removed are left out. If you and
    the release changed the same image, your change stays. If the release has other models, your
    images are encoded again, from uploads/. Searches and changes go on meanwhile.

    irgen add and irgen remove refresh index/ themselves, and so does irgen serve.
    """
    own, source = own_index.path_in(root), own_index.source_folder(root)
    if not own_index.exists(root):
        print(f"There is no {own}: nothing was changed by hand, and searches use {source}.")
        return
    refreshed = own_index.refresh(root, choose_device(), drop_missing=drop_missing)
    if refreshed is None:
        print(f"{own} is up to date with {source}.")
        return
    print(f"{describe_refresh(root, refreshed)}.")
