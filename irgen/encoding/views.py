"""Cache views of training images through a frozen encoder, within a budget of disk."""

import os
import shutil
import time
import warnings
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from irgen.compute.checks import check_finite
from irgen.compute.machine import Machine
from irgen.compute.seeds import seeded_generator
from irgen.encoding import augment
from irgen.encoding.batches import EncodedViews
from irgen.encoding.encode import (
    NOT_FINITE,
    Encoding,
    encode_batches,
    fingerprint,
    open_batches,
    open_pixels,
)
from irgen.encoding.image_batches import BatchEncoder
from irgen.encoding.uncached import UncachedTokens
from irgen.errors import IrgenWarning
from irgen.files.digests import digest
from irgen.files.room import GIGABYTE, measure_size, require_room
from irgen.models.encoder import ImageEncoder
from irgen.params import Augment

VIEWS, SUMS, DONE = ("summaries.npy", "tokens.npy"), "sums.npy", "done.npy"
KEPT_VIEWS = 12  # sets of views; a pipeline and its baselines use at most six
DISK_SHARE = 0.8  # of the disk that is free without views; more is never taken


def encode_views(
    encoder: ImageEncoder, sha256s: list[str], changes: Augment, seed: int, encoding: Encoding
) -> EncodedViews:
    """Return ``changes.views`` views of each image through a frozen encoder, memory-mapped from the
    cache.

    The first view is the plain image, the others are changed at random (seeded). Disk: V · (S · 4 +
    P · T · 2) bytes an image. Tokens of the images that ``compute.views_gigabytes`` has no room for
    are encoded whenever they are drawn, and are the same. Views are encoded again only if the
    encoder, the images or ``changes`` differ. A killed process continues where it was. Sets used
    longest ago are deleted, halves that a kill left, too. All views are compared with their
    checksums first; damaged ones are made again. Raises RoomError if the disk has no room.
    """
    weights = fingerprint([encoder], encoder.decoding, encoding.encoder_machine)
    size = encoding.settings.batch_size
    tokens = encoder.token_count
    key = digest(weights, tokens, sha256s, vars(changes), seed, size, augment.VERSION)[:16]
    folder = encoding.cache / "views" / key
    if not folder.exists() or _are_damaged(folder, size):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(encoding.cache / "views.lock"):
            if folder.exists() and _are_damaged(folder, size):
                warnings.warn(f"{folder} is damaged and made again", IrgenWarning, stacklevel=2)
                shutil.rmtree(folder)
            if not folder.exists():  # another process may have written it meanwhile
                partial = folder.with_name(f".{key}.part")
                _reserve(partial, encoder, len(sha256s), changes.views, encoding)
                _write_views(encoder, sha256s, changes, seed, encoding, partial)
                partial.replace(folder)
    os.utime(folder, ns=(now := time.time_ns(), now))  # it was used last
    summaries, tokens = (np.load(folder / name, mmap_mode="r") for name in VIEWS)
    if len(tokens) == len(sha256s):
        return EncodedViews(summaries, tokens)
    uncached = UncachedTokens(
        encoder=encoder.to(encoding.machine.device).eval(),
        pixels=open_pixels(encoder, sha256s, encoding),
        first=len(tokens),
        changes=changes,
        seed=seed,
        machine=encoding.machine,
        size=size,
    )
    return EncodedViews(summaries, tokens, uncached)


def _are_damaged(folder: Path, size: int) -> bool:
    """Tell whether views of batches of ``size`` differ from their checksums; those of an older
    version have none."""
    if not (folder / SUMS).exists():
        return False
    try:
        sums = np.load(folder / SUMS)  # (V, batches, 2)
        arrays = [np.load(folder / name, mmap_mode="r") for name in VIEWS]
    except (ValueError, OSError):
        return True
    types = [(array.dtype, array.shape[1:2]) for array in arrays]
    if types != [(np.float32, sums.shape[:1]), (np.float16, sums.shape[:1])]:
        return True
    for view, batches in enumerate(sums):
        for i, expected in enumerate(batches):
            rows = slice(i * size, (i + 1) * size)
            if [_sum(array[rows, view]) for array in arrays] != expected.tolist():
                return True
    return False


def _sum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data)


def _reserve(
    folder: Path, encoder: ImageEncoder, count: int, views: int, encoding: Encoding
) -> None:
    """Create the arrays of a set in ``folder``, unless a killed process has begun it: room is made
    and taken for summaries of all ``count`` images, and for tokens as far as the budget goes."""
    if (folder / SUMS).exists() and (folder / DONE).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    size, parent = encoding.settings.batch_size, folder.parent
    free = shutil.disk_usage(parent).free + sum(map(measure_size, parent.iterdir()))
    limit = int(min(encoding.settings.views_gigabytes * GIGABYTE, DISK_SHARE * free))
    summary_bytes = views * encoder.width * 4
    token_bytes = views * encoder.token_count * encoder.token_width * 2
    room = max(limit // 2 - count * summary_bytes, 0)  # validation images have a set, too
    cached = count if count * token_bytes <= room else room // token_bytes // size * size
    needed = count * summary_bytes + cached * token_bytes
    _delete_oldest(parent, limit - needed)
    require_room(parent, needed, f"{views} views of {count:,} images")
    if cached < count:
        tqdm.write(
            f"views: {cached:,} of {count:,} images have their tokens cached in "
            f"{cached * token_bytes / GIGABYTE:,.3g} GB; those of the others are encoded when they "
            "are drawn, to the same result in more time. For more: free disk, raise "
            f"compute.views_gigabytes, and delete {parent} before the next run"
        )
    folder.mkdir()
    _create(folder / VIEWS[0], np.float32, (count, views, encoder.width))
    tokens = (cached, views, encoder.token_count, encoder.token_width)
    _create(folder / VIEWS[1], np.float16, tokens)
    _create(folder / SUMS, np.uint32, (views, -(-count // size), 2))
    _create(folder / DONE, np.uint8, (views, -(-count // size)))


def _create(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    """Create an array whose bytes are taken on the disk: writing to a map of a full one would kill
    the process."""
    np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _delete_oldest(folder: Path, limit: int) -> None:
    """Delete the sets used longest ago, halves too, so that another one can join the rest: they
    take at most ``limit`` bytes, and are fewer than KEPT_VIEWS."""
    newest = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    total = 0
    for number, path in enumerate(newest, 1):
        total += measure_size(path)
        if total > limit or number >= KEPT_VIEWS:
            shutil.rmtree(path, ignore_errors=True)


def _write_views(
    encoder: ImageEncoder,
    sha256s: list[str],
    changes: Augment,
    seed: int,
    encoding: Encoding,
    folder: Path,
) -> None:
    """Write VIEWS and their checksums SUMS into ``folder``, a view of all images after the other.
    DONE tells which batches are on the disk: a killed process continues with the others. A thread
    brings a batch to the disk while the next one is encoded."""
    arrays = [np.load(folder / name, mmap_mode="r+") for name in (*VIEWS, SUMS, DONE)]
    summaries, tokens, sums, done = arrays
    batches = open_batches(sha256s, encoder.decoding, encoding)
    change_and_encode = BatchEncoder(encoder.eval(), ViewEncoder(changes, seed, len(batches)))
    numbers = np.flatnonzero(done.ravel() == 0).tolist()

    def commit(view: int, i: int) -> None:
        for array in arrays[:-1]:
            array.flush()
        done[view, i] = 1
        done.flush()

    encoded = encode_batches(batches, change_and_encode, numbers, encoding, "views")
    with closing(encoded), ThreadPoolExecutor(1, thread_name_prefix="views") as writer:
        committed: Future[None] | None = None
        for number, (summary, grids) in encoded:
            if committed is not None:
                committed.result()
            view, i = divmod(number, len(batches))
            rows = batches.rows(number)
            summaries[rows, view] = summary
            tokens[rows, view] = grids[: len(tokens[rows])]
            sums[view, i] = _sum(summaries[rows, view]), _sum(tokens[rows, view])
            committed = writer.submit(commit, view, i)
        if committed is not None:
            committed.result()


@dataclass(frozen=True)
class ViewEncoder:
    """Encode batch after batch, view after view: the first view is plain, the others are changed by
    random numbers of ``seed``, the view and the batch."""

    changes: Augment
    seed: int
    batches: int  # of a view

    def __call__(
        self, encoder: ImageEncoder, machine: Machine, number: int, pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return summaries (B, S), and tokens (B, P, T) in 16 bits. Raises NumberError if one of
        them is not finite."""
        view, batch = divmod(number, self.batches)
        if view:
            generator = seeded_generator(self.seed, view, batch)
            pixels = augment.augment(pixels, self.changes, encoder.decoding.size, generator)
        summary, grids = encoder(pixels.to(machine.device))
        check_finite(summary, "encoded views", NOT_FINITE)
        check_finite(grids.half(), "tokens of encoded views, in 16 bits", NOT_FINITE)
        return summary.float(), grids.half()
