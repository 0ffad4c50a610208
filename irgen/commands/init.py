"""``irgen init``: look at a collection of images and write the settings that suit it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands.options import PATH, root_option
from irgen.errors import IrgenError

if TYPE_CHECKING:
    from irgen.commands.init_costs import Machine
    from irgen.params.presets import Collection, Pretrained, Values

ASK = (
    "say where your images are: irgen init ../photos, a folder with one folder a label (or none), an "
    "archive (.tar, .zip), a list (.csv, .parquet), s3://bucket/prefix or https://…/images.zip. The "
    "built-in handwritten digits: irgen init digits"
)


@click.command()
@click.argument("source", required=False, metavar="[PATH]")
@click.option(
    "--weights",
    metavar="FILE",
    help="A safetensors file with the weights of a pretrained encoder. Default: the hub's.",
)
@click.option(
    "--encoder", "name", metavar="NAME", default="", help="The timm model to use as the encoder."
)
@click.option("--unlabelled", is_flag=True, help="Use no labels, even if there are folders.")
@click.option("--force", is_flag=True, help="Overwrite settings that you have changed.")
@root_option
def init(
    source: str | None, weights: str | None, name: str, unlabelled: bool, force: bool, root: Path
) -> None:
    """Look at the images at PATH and write the settings that suit them into params.yaml.

    PATH: a folder, an archive, a list, or one of these at s3://… or https://…; or "digits". It is
    listed whole; some images are opened, none is copied. Settings that you changed are not
    overwritten without --force.
    """
    from irgen.catalog.sources.open import open_source
    from irgen.catalog.survey import survey_source
    from irgen.commands import init_costs, init_output
    from irgen.params import Download, load
    from irgen.params.writing import apply_values, list_edits

    if not source:
        raise click.UsageError(ASK)
    path = root / "params.yaml"
    edits = [] if force else list_edits(path)
    if edits:
        raise IrgenError(
            f"{path} has settings of yours ({', '.join(edits[:3])}{' …' if edits[3:] else ''}), "
            "which would be lost. To write it anew: the same command with --force. To keep it: set "
            "download.source in it yourself"
        )
    download = Download(source=source)
    if source == "digits":
        ...
