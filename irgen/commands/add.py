"""``irgen add``: add images to the index, batch by batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from irgen.commands import project_index
from irgen.commands.format import format_count
from irgen.commands.options import (
    PATH,
    change_index_option,
    change_server_option,
    note,
    root_option,
)
from irgen.errors import ImageError, IndexingError, IrgenError, ParamsError
from irgen.releases import own_index

if TYPE_CHECKING:
    import polars as pl

    from irgen.index.index import Index

BATCH = 256  # images added together: a kill loses no more


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Choices for images that are in the index already or cannot be read."""

    upsert: bool
    skip_known: bool
    skip_unreadable: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Image files to add, row by row: ``paths``, ``names`` (paths from the base), ``ids`` and
    ``metadata``. ``replaced``: number of images that replace one of the index; ``skipped``: number
    of images left out because the index has their id."""

    paths: list[Path]
    names: list[str]
    ids: list[str]
    metadata: pl.DataFrame
    replaced: int
    skipped: int

    def __len__(self) -> int:
        return len(self.paths)


@click.command()
@click.argument("images", nargs=-1, required=True, type=PATH, metavar="IMAGE...")
@click.option(
    "--base",
    type=PATH,
    default=Path(),
    help="The folder that ids start from: an image's id is its path from there. Default: the "
    "current folder.",
)
@click.option(
    "--metadata",
    type=PATH,
    metavar="FILE",
    help="A .csv or .parquet file with one row per image, found by its path (from the base) in "
    "the column path, or by its id in the column id. With both columns, id is the image's id. All "
    "other columns are metadata.",
)
@click.option("--upsert", is_flag=True, help="Replace images whose id is in the index.")
@click.option("--skip-known", is_flag=True, help="Leave out images whose id is in the index.")
@click.option("--skip-unreadable", is_flag=True, help="Leave out images that cannot be read.")
@change_index_option
@change_server_option
@root_option
def add(
    images: tuple[Path, ...],
    base: Path,
    metadata: Path | None,
    upsert: bool,
    skip_known: bool,
    skip_unreadable: bool,
    folder: Path | None,
    server: str | None,
    root: Path,
) -> None:
    """Add images to the index: each IMAGE is a file, or a folder whose images are added.

    Every search that starts afterwards finds them. Images are added batch by batch, and what was
    added stays: repeat an interrupted add with --skip-known (or --upsert). An image that cannot be
    read is listed with the reason; then nothing is added unless --skip-unreadable is given. The
    index fills in path, sha256, width and height itself. The files are copied to uploads/ in the
    project: pictures are read there, and the models of a later release encode them again.
    """
    if upsert and skip_known:
        raise click.UsageError("--upsert and --skip-known exclude each other")
    if server and (folder or skip_known or skip_unreadable):
        raise click.UsageError("--server excludes --index, --skip-known and --skip-unreadable")
    from irgen.catalog.sources.selection import make_rules
    from irgen.commands.image_files import list_images, relative_names
    from irgen.compute.machine import keep_freed_memory

    keep_freed_memory()
    policy = Policy(upsert=upsert, skip_known=skip_known, skip_unreadable=skip_unreadable)
    paths, left_out = list_images(images, make_rules(read_ignore(root)))
    for line in left_out:
        note(line)
    names = relative_names(paths, base)
    if server:
        print(add_by_service(server, paths, names, metadata, upsert=upsert))
        return

    def make_plan(index: Index) -> Plan:
        return plan_images(index, paths, names, metadata, policy)

    with project_index.open_to_change(root, folder, make_plan) as (index, plan):
        with note_progress_if_interrupted(index, policy):
            unreadable = add_images(index, plan, policy, choose_keeper(index, root))
        print(summarize(plan, unreadable, index))


def add_by_service(
    url: str, paths: Sequence[Path], names: Sequence[str], metadata: Path | None, *, upsert: bool
) -> str:
    """Add images through the service at ``url``, request by request; return a summary."""
    from irgen.client import Client
    from irgen.commands import service_changes

    added = replaced = images = 0
    with Client(url) as client, show_progress("adding", len(paths)) as bar:
        try:
            for change in service_changes.add_images(client, paths, names, metadata, upsert=upsert):
                added, images = added + len(change.ids), change.images
                replaced += change.replaced
                bar.update(len(change.ids))
        except (KeyboardInterrupt, IrgenError):
            if added:
                count = format_count(added, "image")
                note(f"{count} added before it ended; repeat with --upsert to add the rest")
            raise
        more = f"; {replaced:,} in place of older ones" if replaced else ""
        text = f"{format_count(added, 'image')} added{more}."
        return f"{text} The index of {client.url} holds {images:,} now."


def read_ignore(root: Path) -> tuple[str, ...]:
    """Return the project's ignore patterns; none if its settings are not valid."""
    from irgen.params import load

    with suppress(ParamsError, OSError):
        return load(root / "params.yaml").download.ignore
    return ()


def plan_images(
    index: Index, paths: list[Path], names: list[str], metadata_file: Path | None, policy: Policy
) -> Plan:
    """Plan which images to add; a plan without images is false. Raise IrgenError if the add would
    certainly fail."""
    import numpy as np

    from irgen.commands.image_files import read_metadata
    from irgen.index import metadata
    from irgen.index.rows import hash_distinct, shorten

    schema = index.schema
    ids, table = read_metadata(metadata_file, names, schema)
    hash_distinct(ids)
    metadata.complete(table if table.width else None, len(ids), schema)
    is_known = index.view.find(ids) >= 0
    if is_known.any() and not (policy.upsert or policy.skip_known):
        known_ids = [ids[row] for row in np.flatnonzero(is_known)]
        raise IndexingError(
            f"in the index already: {shorten(known_ids)}; replace them with --upsert, or leave "
            "them out with --skip-known"
        )
    rows = np.flatnonzero(~is_known) if policy.skip_known else np.arange(len(ids))
    plan = Plan(
        paths=[paths[row] for row in rows],
        names=[names[row] for row in rows],
        ids=[ids[row] for row in rows],
        metadata=table[rows] if table.width else table,
        replaced=int(is_known.sum()) if policy.upsert else 0,
        skipped=len(ids) - len(rows),
    )
    if plan and not policy.skip_unreadable:
        refuse_unreadable(plan.paths, index)
    return plan


def refuse_unreadable(paths: Sequence[Path], index: Index) -> None:
    """Print the images that cannot be read, with reasons; raise ImageError if there are any."""
    from irgen.commands.image_files import decode_images

    unreadable = 0
    pictures = decode_images(paths, index.models.decoding)
    with closing(pictures), show_progress("checking", len(paths)) as bar:
        for path, picture in zip(paths, pictures, strict=True):
            if isinstance(picture, str):
                unreadable += 1
                bar.write(f"irgen add: {path}: {picture}", file=sys.stderr)
            bar.update()
    if unreadable:
        raise ImageError(
            f"{unreadable:,} of {format_count(len(paths), 'image')} cannot be read, so nothing was "
            "added: repair or remove them, or leave them out with --skip-unreadable"
        )


def choose_keeper(index: Index, root: Path) -> Callable[[bytes], object]:
    """Return the function that keeps the file of an image that is added. Only those of the
    project's own index are kept."""
    from irgen.catalog.uploads import store_upload
    from irgen.commands.image_files import discard

    return partial(store_upload, root) if own_index.is_own(index, root) else discard


def add_images(index: Index, plan: Plan, policy: Policy, keep: Callable[[bytes], object]) -> int:
    """Add the planned images batch by batch. Return the number of images left out because they
    cannot be read. Raise IrgenError if an image has become unreadable, or if the index refuses it;
    earlier batches stay. ``keep`` gets the content of each file first."""
    import numpy as np

    from irgen.commands.image_files import decode_images
    from irgen.index.decoded_image import DecodedImage, add_file_columns

    add_batch, unreadable = index.upsert if policy.upsert else index.add, 0
    if not plan:
        return 0
    pictures = decode_images(plan.paths, index.models.decoding, keep)
    with closing(pictures), show_progress("adding", len(plan)) as bar:
        for start in range(0, len(plan), BATCH):
            rows, readable = [], []
            for row, picture in enumerate(islice(pictures, BATCH), start):
                if isinstance(picture, DecodedImage):
                    rows.append(row)
                    readable.append(picture)
                    continue
                reason = f"{plan.paths[row]}: {picture}"
                if not policy.skip_unreadable:
                    raise ImageError(reason)
                bar.write(f"irgen add: left out {reason}", file=sys.stderr)
                unreadable += 1
            if rows:
                pixels = np.stack([picture.pixels for picture in readable])
                table = plan.metadata[rows] if plan.metadata.width else plan.metadata
                names = [plan.names[row] for row in rows]
                columns = add_file_columns(table, names, readable, index.schema)
                add_batch(pixels, [plan.ids[row] for row in rows], columns)
            bar.update(min(BATCH, len(plan) - start))
    return unreadable


def show_progress(title: str, total: int) -> tqdm:
    """Return a progress bar, shown on a terminal only."""
    return tqdm(total=total, desc=title, unit="image", leave=False, disable=None)


@contextmanager
def note_progress_if_interrupted(index: Index, policy: Policy) -> Iterator[None]:
    """Print how many images were added if the block is interrupted: as many as the index has
    committed, since an interrupt may come just after a commit."""
    before = index.revision
    try:
        yield
    except (KeyboardInterrupt, IrgenError):
        again = "--upsert" if policy.upsert else "--skip-known"
        note(
            f"{format_count(index.revision - before, 'image')} added before it ended; repeat with "
            f"{again} to add the rest"
        )
        raise


def summarize(plan: Plan, unreadable: int, index: Index) -> str:
    """Describe how many images were added, replaced and left out, and the size of the index."""
    counts = [
        (plan.replaced, "in place of older ones"),
        (plan.skipped, "left out, known already"),
        (unreadable, "left out, unreadable"),
    ]
    more = "".join(f"; {count:,} {text}" for count, text in counts if count)
    folder, added = own_index.folder_of(index), len(plan) - unreadable
    return f"{format_count(added, 'image')} added{more}. {folder} holds {len(index):,} now."
