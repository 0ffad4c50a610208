"""Add and remove images through a running service, request by request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from irgen.client import Change, Client
from irgen.errors import ImageError

IMAGES, FILE_BYTES = 32, 16_000_000  # of a request: the service takes no more
IDS, ID_BYTES = 500, 16_000


def add_images(
    client: Client,
    paths: Sequence[Path],
    names: Sequence[str],
    metadata_file: Path | None,
    *,
    upsert: bool,
) -> Iterator[Change]:
    """Add image files and yield what each request changed. ``names``: their paths from the base,
    which are the ids unless the file of metadata has others. Raise IrgenError for a file that
    cannot be read, ServiceError with the service's reason; earlier requests stay."""
    import polars as pl

    from irgen.commands.image_files import read_metadata
    from irgen.index.metadata import as_plain

    ids, table = read_metadata(metadata_file, names, pl.Schema())  # the service has the types
    rows: list[dict[str, Any]] = table.rows(named=True) if table.width else [{} for _ in ids]
    send = client.upsert if upsert else client.add
    for batch in _split([path.stat().st_size for path in paths], IMAGES, FILE_BYTES):
        images = [(names[row], _read_file(paths[row])) for row in batch]
        metadata = [as_plain(rows[row]) for row in batch]
        yield send(images, [ids[row] for row in batch], metadata)


def _read_file(path: Path) -> bytes:
    from irgen.catalog.images.pixels import read_image

    try:
        return read_image(path)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None


def remove_images(client: Client, ids: Sequence[str]) -> Iterator[Change]:
    """Remove images and yield what each request changed. Raise ServiceError with the service's
    reason; earlier requests stay."""
    for batch in _split([len(name.encode()) for name in ids], IDS, ID_BYTES):
        yield client.remove([ids[row] for row in batch])


def list_matching(client: Client, expression: str) -> list[str]:
    """Return the ids of the images that match an expression."""
    ids: list[str] = []
    while page := client.items(filter=expression, offset=len(ids), limit=1000):
        ids += [item["id"] for item in page]
    return ids


def _split(sizes: Sequence[int], most: int, most_bytes: int) -> Iterator[range]:
    """Yield ranges of rows: each of at most ``most``, and of ``most_bytes`` together unless one
    alone is larger.

    >>> list(_split([5, 5, 5, 20, 1], most=2, most_bytes=12))
    [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    """
    start = total = 0
    for row, size in enumerate(sizes):
        if row > start and (row - start == most or total + size > most_bytes):
            yield range(start, row)
            start, total = row, 0
        total += size
    if start < len(sizes):
        yield range(start, len(sizes))
