"""Replace a project's own index by a copy of what is served now that has the same edits."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.catalog.images.pixels import count_cores, decode_images
from irgen.checkpoints.models import PRETRAINED, TOKENIZER
from irgen.errors import ImageError, IndexingError
from irgen.index import copying, folder
from irgen.index.folder import Folder
from irgen.index.index import Index
from irgen.index.metadata import ID
from irgen.index.view import View
from irgen.releases import edits
from irgen.releases.edits import Merge

BATCH = 64  # images encoded together
WRITER_SECONDS = 60.0  # to wait for a writer to end before the index is replaced
ReadFile = Callable[[Mapping[str, Any]], bytes | None]  # of an image's metadata; None: it is gone


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """Result of a refresh from ``source``: the numbers of images that were ``put`` there (added or
    replaced) and ``removed``; ids of images left out because their files are ``missing``; metadata
    columns that were ``dropped``; and the ``view`` of the index now."""

    source: Path
    put: int
    removed: int
    missing: list[str]
    dropped: list[str]
    view: View


def replace(ours: Index, source: Path, read_file: ReadFile, *, drop_missing: bool) -> Refreshed:
    """Replace the own index ``ours`` by a copy of ``source`` with the same edits; return what was
    done.

    The new index is built beside the old one, which can be searched and changed meanwhile. Then its
    writer is kept out, later changes are made in the new one, too, and the new one takes its place.
    If ``source`` has another encoder or tokenizer, added images are encoded again, from the bytes
    that ``read_file`` returns. If one of these files is missing or cannot be decoded, that image is
    left out with ``drop_missing``; without it, raise IndexingError and change nothing.
    """
    own = ours.folder.path
    base = copying.read_source(own)
    if base is None:
        raise IndexingError(
            f"{own} was made by an earlier irgen, which did not note what it was copied from, so "
            f"nobody can tell what was changed by hand: rename it (mv {own} {own}-old), and repeat "
            "those changes in a new copy"
        )
    with ExitStack() as stack:
        new = stack.enter_context(folder.building(own))
        copying.copy(source, new)
        with Index.open(new, writable=True, device=str(ours.device)) as merged:
            theirs, revision = merged.view, ours.view.revision
            work = edits.merge(base, ours.view, theirs)
            missing = _make_edits(work, ours, merged, read_file, drop_missing)
            stack.callback(folder.lock(own, WRITER_SECONDS).release)
            ours.refresh()
            if ours.view.revision != revision:
                earlier, work = work, edits.merge(base, ours.view, theirs)
                _undo(earlier.ids - work.ids, theirs, merged)
                missing = _make_edits(work, ours, merged, read_file, drop_missing)
            view = merged.view
        folder.swap_in(new, own)
    return Refreshed(
        source=source,
        put=len(work.put) - len(missing),
        removed=len(work.removed),
        missing=missing,
        dropped=work.dropped,
        view=view,
    )


def _make_edits(
    work: Merge, ours: Index, merged: Index, read_file: ReadFile, drop_missing: bool
) -> list[str]:
    """Make those edits in ``merged`` that it does not have yet. Return the ids of images that are
    left out."""
    _remove(merged, work.removed)
    is_open = ~edits.holds(merged.view, work.put)
    table, rows = work.put.filter(is_open), work.rows[is_open]
    if not len(table):
        return []
    if has_same_encoder(ours.folder, merged.folder):
        _put(merged, table, *take_encoded(ours.view, rows))
        return []
    images = ours.view.take(rows)
    vectors, missing = encode(images, merged, read_file, drop_missing=drop_missing)
    if missing and not drop_missing:
        reasons = [f"{name}: {reason}" for name, reason in missing.items()]
        raise IndexingError(
            f"{len(missing):,} of the images that were added by hand cannot be encoded by the "
            f"models that are served now ({'; '.join(reasons[:3])}): bring these files back, or "
            "leave the images out with irgen refresh --drop-missing"
        )
    is_left = ~table[ID].is_in(list(missing))
    _put(merged, table.filter(is_left), vectors, None)
    return list(missing)


def has_same_encoder(first: Folder, second: Folder) -> bool:
    """Tell whether two indexes give an image the same embedding and code."""
    files = [[own.models.get(name) for name in (TOKENIZER, PRETRAINED)] for own in (first, second)]
    precisions = [own.config.get("encoder_precision") for own in (first, second)]
    return (
        files[0] == files[1]
        and precisions[0] == precisions[1]
        and torch.equal(first.codebooks, second.codebooks)
    )


def take_encoded(view: View, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return embeddings (n, D) and codes (n, M) of rows (n,) as they are stored."""
    view.base.check_embeddings_once()
    numbers = torch.from_numpy(rows)
    return view.snapshot.gather(numbers, "embeddings"), view.snapshot.gather(numbers, "codes")


def encode(
    images: pl.DataFrame, index: Index, read_file: ReadFile, *, drop_missing: bool
) -> tuple[Tensor, dict[str, str]]:
    """Return embeddings (n, D) by the models of ``index`` of those images whose files can be read,
    and the reasons why others cannot, by id. Without ``drop_missing`` nothing is encoded any more
    once one is missing."""
    decoding, missing = index.models.decoding, dict[str, str]()
    vectors = [torch.empty(0, index.folder.codebooks.shape[2])]

    def read_pixels(image: Mapping[str, Any]) -> np.ndarray | str:
        if (content := read_file(image)) is None:
            return "its file is gone"
        try:
            return decode_images([content], decoding, threads=1)[0]
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(count_cores(), thread_name_prefix="decode") as pool:
        for batch in images.iter_slices(BATCH):
            pixels = list(pool.map(read_pixels, batch.iter_rows(named=True)))
            named = zip(batch[ID], pixels, strict=True)
            missing |= {name: reason for name, reason in named if isinstance(reason, str)}
            squares = [image for image in pixels if isinstance(image, np.ndarray)]
            if squares and (drop_missing or not missing):
                vectors.append(index.embed(np.stack(squares)))  # (b, D)
    return torch.cat(vectors), missing


def _undo(ids: set[str], theirs: View, merged: Index) -> None:
    """Give images of ``merged`` back the state that they have in ``theirs``. They count as images
    that the retriever was not trained on until the next refresh."""
    names = sorted(ids)
    rows = theirs.find(names)
    _remove(merged, [name for name, row in zip(names, rows, strict=True) if row < 0])
    rows = rows[rows >= 0]
    _put(merged, theirs.take(rows), *take_encoded(theirs, rows))


def _remove(index: Index, ids: list[str]) -> None:
    rows = index.view.find(ids)
    index.remove([name for name, row in zip(ids, rows, strict=True) if row >= 0])


def _put(index: Index, table: pl.DataFrame, embeddings: Tensor, codes: Tensor | None) -> None:
    """Add or replace the images of ``table``, in one transaction."""
    metadata = table.drop(ID) if table.width > 1 else None
    index.upsert_encoded(embeddings, table[ID].to_list(), metadata, codes=codes)
