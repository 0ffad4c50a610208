"""Read the ids, metadata and pixels of image files, to add them to an index."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import polars as pl

from irgen.catalog.columns import column_name
from irgen.catalog.datasets.annotations import is_annotation
from irgen.catalog.images.memory import for_files
from irgen.catalog.images.pixels import Decoding, count_cores, read_image
from irgen.catalog.sources.list_text import decode_list, read_texts
from irgen.catalog.sources.local import walk_folder
from irgen.catalog.sources.selection import Rules, describe_left_out, make_empty_error, select_files
from irgen.errors import ImageError, IndexingError, SourceError
from irgen.index.decoded_image import DecodedImage, decode_image
from irgen.index.metadata import ID, OURS
from irgen.index.rows import check_ids, shorten
from irgen.index.user_columns import fit_column

PATH = "path"
LISTED = (PATH, ID, "label", "role")  # columns of a list that are not the user's own
AHEAD = 64  # images decoded in advance


def list_images(paths: Iterable[Path], rules: Rules) -> tuple[list[Path], list[str]]:
    """Return the files among ``paths`` and the image files below their folders, in order, once; and
    what is left out of each folder.

    Folders are searched as a source is, by ``rules``; links to folders are not followed. Raise
    SourceError for a path that is missing, a folder without images, and a path that cannot be read.
    """
    listed: dict[Path, Path] = {}
    left_out: list[str] = []
    for path in paths:
        if not path.exists():
            raise SourceError(f"{path} is not there: name image files, or folders of them")
        files = [path]
        if path.is_dir():
            selection = select_files(walk_folder(path, rules, lambda link: None), rules)
            images = sorted(file for file in selection.files if not is_annotation(file))
            if not images:
                raise make_empty_error(str(path), selection)
            files = [path / file for file in images]
            lines = describe_left_out(selection.skipped, selection.ignored)
            left_out += [f"{path}: {line}" for line in lines]
        for file in files:
            listed.setdefault(_absolute(file), file)
    return list(listed.values()), left_out


def _absolute(path: Path) -> Path:
    """Return an absolute path without ``..``; links are not resolved."""
    return Path(os.path.normpath(path.absolute()))


def relative_names(paths: Sequence[Path], base: Path) -> list[str]:
    """Return paths from ``base``, with slashes. Raise SourceError for one outside of it."""
    top, names = _absolute(base), []
    for path in paths:
        whole = _absolute(path)
        if not whole.is_relative_to(top):
            raise SourceError(
                f"{whole} is not below {top}, where ids start: name a folder above it with --base"
            )
        names.append(whole.relative_to(top).as_posix())
    return names


def read_metadata(
    file: Path | None, names: Sequence[str], schema: pl.Schema
) -> tuple[list[str], pl.DataFrame]:
    """Read ids and metadata of the images at the relative paths ``names`` from ``file``. Without a
    file, the paths are the ids, and there are no columns. ``schema``: the columns of the index.

    All columns but path, id, label and role are the user's, and named as in an index; the role
    plays no part. Raise IndexingError if the file cannot be read, has neither id nor path, or has
    no row or more than one for an image.
    """
    if file is None:
        return check_ids(names), pl.DataFrame()
    table = _read(file, schema)
    by = PATH if PATH in table.columns else ID
    if by not in table.columns:
        raise IndexingError(
            f"{file} has no column path or id by which to find images; it has "
            f"{', '.join(table.columns)}"
        )
    if by == PATH:  # ./a//b.png is a/b.png
        table = table.with_columns(pl.col(PATH).map_elements(os.path.normpath, pl.String))
    images = pl.DataFrame({by: list(names)}, {by: pl.String})
    table = table.filter(pl.col(by).is_in(images[by].implode()))
    twice = table[by].filter(table[by].is_duplicated()).unique(maintain_order=True)
    if len(twice):
        raise IndexingError(f"{file} has more than one row of {by} {shorten(twice.to_list())}")
    without = images.join(table, on=by, how="anti")[by].to_list()
    if without:
        raise IndexingError(
            f"{file} has no row of {by} {shorten(without)}, of {len(names):,} images: give each "
            f"image a row, with its path from --base"
        )
    rows = images.join(table, on=by, how="left", maintain_order="left")
    ids = rows[ID].to_list() if ID in rows.columns else list(names)
    if None in ids:
        raise IndexingError(f"{file} has no id of {names[ids.index(None)]!r}")
    return check_ids(ids), rows.drop(PATH, ID, "role", strict=False)


def _read(file: Path, schema: pl.Schema) -> pl.DataFrame:
    """Return the file's columns, named as in an index and in the types of its ``schema``."""
    ending, texts = file.suffix.lower(), pl.Schema({PATH: pl.String(), ID: pl.String()})
    if ending not in (".csv", ".parquet"):
        raise IndexingError(f"{file} is neither a .csv nor a .parquet file")
    try:
        if ending == ".csv":
            table = read_texts(decode_list(file.read_bytes(), str(file)), str(file))
        else:
            table = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise IndexingError(f"{file} cannot be read as metadata: {reason}") from None
    table = table.rename({n: column_name(n, OURS) for n in table.columns if n not in LISTED})
    kinds = {**schema, **texts}
    return table.with_columns(
        fit_column(values, kinds[values.name], str(file))
        for values in table
        if values.name in kinds
    )


def discard(content: bytes) -> None:
    """Do nothing with a file's content."""


def decode_images(
    paths: Sequence[Path], decoding: Decoding, keep: Callable[[bytes], object] = discard
) -> Generator[DecodedImage | str, None, None]:
    """Yield the images at ``paths``, in order; the reason in place of one that cannot be read.
    ``keep`` gets the content of the others' files, before they are yielded."""

    def read(path: Path) -> DecodedImage | str:
        try:
            with for_files.reserve(path.stat().st_size):
                content = read_image(path)
                picture = decode_image(content, decoding)
                keep(content)
                return picture
        except ImageError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    pool, ahead = ThreadPoolExecutor(count_cores(), thread_name_prefix="decode"), iter(paths)
    try:
        waiting: deque[Future] = deque(pool.submit(read, path) for path in islice(ahead, AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(read, path) for path in islice(ahead, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
