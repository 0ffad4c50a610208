"""``irgen add``: images into the index, batch by batch, each of which lasts."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from irgen.commands import intake, places
from irgen.commands.intake import Picture
from irgen.commands.wording import counted
from irgen.compute import keep_freed_memory
from irgen.errors import ImageError, IndexingError, IrgenError
from irgen.index import metadata
from irgen.index.index import Index
from irgen.index.rows import hash_distinct, shorten

BATCH = 256  # images that are added together: a kill loses no more


@dataclass(frozen=True)
class Plan:
    """Image files to add: row by row their ``names`` (paths from the base), ``ids`` and metadata.
    ``replaced``: how many ids are in the index; ``known``: how many images were passed over because
    theirs are."""

    paths: list[Path]
    names: list[str]
    ids: list[str]
    about: pl.DataFrame
    replaced: int
    known: int

    def __len__(self) -> int:
        return len(self.paths)


def run(options: Namespace) -> None:
    """Adds images and says how many. Raises IrgenError, having added nothing, for paths, ids or
    metadata that make no sense, and for unreadable images unless they are to be passed over."""
    keep_freed_memory()
    paths = intake.listed(options.images)
    names = intake.relative(paths, options.base)
    with places.to_change(options, lambda index: plan(index, paths, names, options)) as changing:
        index, planned = changing
        with _told_if_cut_short(index, options):
            unreadable = put(index, planned, options)
        print(_told(planned, unreadable, index))


def plan(index: Index, paths: list[Path], names: list[str], options: Namespace) -> Plan:
    """What is to be added, false if that is nothing. Raises IrgenError for all that can be known to
    fail."""
    schema = index.schema
    ids, about = intake.described(options.metadata, names, schema)
    hash_distinct(ids)
    metadata.complete(about if about.width else None, len(ids), schema)
    known = index.view.find(ids) >= 0
    if known.any() and not (options.upsert or options.skip_known):
        there = [name for name, is_known in zip(ids, known, strict=True) if is_known]
        raise IndexingError(
            f"in the index already: {shorten(there)}; replace them with --upsert, or pass them "
            "over with --skip-known"
        )
    rows = np.flatnonzero(~known) if options.skip_known else np.arange(len(ids))
    planned = Plan(
        paths=[paths[row] for row in rows],
        names=[names[row] for row in rows],
        ids=[ids[row] for row in rows],
        about=about[rows] if about.width else about,
        replaced=int(known.sum()) if options.upsert else 0,
        known=len(ids) - len(rows),
    )
    if planned and not options.skip_unreadable:
        _refuse_unreadable(planned.paths, index, options)
    return planned


def _refuse_unreadable(paths: Sequence[Path], index: Index, options: Namespace) -> None:
    decoding, wrong = index.models.decoding, 0
    with closing(intake.pictures(paths, decoding)) as stream, _bar("checking", len(paths)) as bar:
        for path, picture in zip(paths, stream, strict=True):
            if isinstance(picture, str):
                wrong += 1
                bar.write(f"irgen {options.name}: {path}: {picture}", file=sys.stderr)
            bar.update()
    if wrong:
        raise ImageError(
            f"{wrong:,} of {counted(len(paths), 'image')} cannot be read, so nothing was added: "
            "mend them or take them away, or pass them over with --skip-unreadable"
        )


def put(index: Index, planned: Plan, options: Namespace) -> int:
    """Add what is planned. Return the number of images that were unreadable. Raise IrgenError if
    an image has become unreadable, or the index refuses it; what was added before stays."""
    add = index.upsert if options.upsert else index.add
    total, unreadable = len(planned), 0
    if not total:
        return 0
    stream = intake.pictures(planned.paths, index.models.decoding)
    with closing(stream), _bar("adding", total) as bar:
        for start in range(0, total, BATCH):
            rows, read = [], []
            for row, picture in enumerate(islice(stream, BATCH), start):
                if isinstance(picture, Picture):
                    rows.append(row)
                    read.append(picture)
                    continue
                told = f"{planned.paths[row]}: {picture}"
                if not options.skip_unreadable:
                    raise ImageError(told)
                bar.write(f"irgen {options.name}: passed over {told}", file=sys.stderr)
                unreadable += 1
            if rows:
                ids = [planned.ids[row] for row in rows]
                pixels = np.stack([picture.pixels for picture in read])
                add(pixels, ids, _columns(planned, rows, read, index.schema))
            bar.update(min(BATCH, total - start))
    return unreadable


def _columns(
    planned: Plan, rows: list[int], read: list[Picture], schema: pl.Schema
) -> pl.DataFrame | None:
    """The metadata of some rows, with what the index keeps of every file itself."""
    of_files = [
        pl.Series("path", [planned.names[row] for row in rows], pl.String),
        pl.Series("sha256", [picture.sha256 for picture in read], pl.String),
        pl.Series("width", [picture.width for picture in read], pl.Int32),
        pl.Series("height", [picture.height for picture in read], pl.Int32),
    ]
    given = planned.about[rows].get_columns() if planned.about.width else []
    known = {column.name for column in given}
    own = [c for c in of_files if schema.get(c.name) == c.dtype and c.name not in known]
    return pl.DataFrame([*given, *own]) if given or own else None


def _bar(title: str, total: int) -> tqdm:
    return tqdm(total=total, desc=title, unit="image", leave=False, disable=None)


@contextmanager
def _told_if_cut_short(index: Index, options: Namespace) -> Iterator[None]:
    """Say how many images were added if the block does not come to its end: as many as the index
    says were committed, since an interrupt may come between a commit and the next statement."""
    before = index.revision
    try:
        yield
    except (KeyboardInterrupt, IrgenError):
        again = "--upsert" if options.upsert else "--skip-known"
        places.note(
            options,
            f"{counted(index.revision - before, 'image')} added before it ended; repeat with "
            f"{again} to add the rest",
        )
        raise


def _told(planned: Plan, unreadable: int, index: Index) -> str:
    more = [
        (planned.replaced, "in place of older ones"),
        (planned.known, "passed over, known already"),
        (unreadable, "passed over, unreadable"),
    ]
    told = "".join(f"; {count:,} {what}" for count, what in more if count)
    folder, added = places.folder_of(index), len(planned) - unreadable
    return f"{counted(added, 'image')} added{told}. {folder} holds {len(index):,} now."
