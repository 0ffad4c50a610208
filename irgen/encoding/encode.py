"""Encode images: summaries once in an image's life, and cached views to train on."""

import hashlib
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

from irgen.catalog.images import pixels as images
from irgen.catalog.images.pixels import Decoding, read_pixels, stream_pixels
from irgen.catalog.shards import Images
from irgen.compute import Machine, check_finite, full_batches, prepare, seed_everything
from irgen.encoding import augment
from irgen.encoding.batches import EncodedViews, Pixels
from irgen.encoding.cache import ArrayStore
from irgen.encoding.lazy_pixels import LazyPixels
from irgen.errors import IrgenWarning
from irgen.files.atomic import delete_oldest
from irgen.files.digests import digest
from irgen.files.records import read_json, write_json
from irgen.files.workspace import Workspace
from irgen.models import encoder as encoder_module
from irgen.models.encoder import ImageEncoder
from irgen.params import Augment, Compute

GIGABYTE = 1_000_000_000
SHARD = 64  # batches that a killed process loses at most
NOT_FINITE = "set compute.precision to fp32, or choose another encoder or other weights"
VIEWS, SUMS = ("summaries.npy", "tokens.npy"), "sums.npy"
KEPT_VIEWS = 12  # sets of views; a pipeline and its baselines use at most six


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Images, machine and cache of a project, for encoding."""

    images: Images
    machine: Machine
    settings: Compute
    cache: Path


def open_encoding(settings: Compute, workspace: Workspace) -> Encoding:
    """Open a project's downloaded images and its cache, on the machine chosen by ``settings``."""
    return Encoding(
        images=Images(workspace.existing("download")),
        machine=prepare(settings),
        settings=settings,
        cache=workspace.cache,
    )


def fingerprint(modules: list[nn.Module], decoding: Decoding, machine: Machine) -> str:
    """Return a digest of everything that an encoding depends on: weights, decoding, precision,
    device type, and the versions of the code that decodes and encodes."""
    weights = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            weights.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    versions = (images.VERSION, encoder_module.VERSION)
    precision = (str(machine.autocast), machine.device.type)
    return digest(weights.hexdigest(), astuple(decoding), precision, versions)[:16]


def decode_pixels(encoder: ImageEncoder, sha256s: list[str], encoding: Encoding) -> np.ndarray:
    """Return decoded images (N, C, H, H) uint8 as ``encoder`` wants them, all in memory."""
    threads = encoding.settings.threads
    return read_pixels(encoding.images, sha256s, encoder.decoding, threads=threads)


def stream_batches(
    sha256s: list[str], decoding: Decoding, encoding: Encoding, title: str
) -> Iterator[tuple[Tensor, int]]:
    """Yield decoded images (B, C, H, H) uint8 in batches of exactly the batch size, and how many
    of each are new: the last batch is filled up with its last image."""
    size, threads = encoding.settings.batch_size, encoding.settings.threads
    stream = stream_pixels(encoding.images, sha256s, decoding, batch_size=size, threads=threads)
    with tqdm(total=len(sha256s), desc=title, unit="image", leave=False, disable=None) as bar:
        for batch in stream:
            rows, new = next(full_batches(len(batch), size))
            yield torch.from_numpy(batch[rows.numpy()]), new
            bar.update(new)


@torch.inference_mode()
def encode_once(
    store: ArrayStore,
    sha256s: list[str],
    decoding: Decoding,
    encode: Callable[[Tensor], Tensor],
    encoding: Encoding,
) -> np.ndarray:
    """Return (N, D) float32 of images, row-aligned with ``sha256s``, N ≥ 1.

    Only images that are not in ``store`` pass through ``encode``: (B, C, H, H) uint8 → (B, D), in
    the machine's precision. Batches are always full, so no result depends on what is stored.
    Raises NumberError, having stored none of it, if a result is not finite.
    """
    missing, stored = [sha256s[row] for row in store.missing(sha256s)], 0

    def rows() -> Iterator[np.ndarray]:
        for batch, new in stream_batches(missing, decoding, encoding, "encode"):
            with encoding.machine.precision():
                yield encode(batch.to(encoding.machine.device))[:new].float().cpu().numpy()

    encoded = rows()
    while shard := list(islice(encoded, SHARD)):
        values = np.concatenate(shard)
        check_finite(torch.from_numpy(values), "encoded images", NOT_FINITE)
        store.add(missing[stored : stored + len(values)], values)
        stored += len(values)
    return store.get(sha256s)


def encode_summaries(encoder: ImageEncoder, sha256s: list[str], encoding: Encoding) -> np.ndarray:
    """Return encoder summaries (N, S) float32 of images, row-aligned with ``sha256s``.

    An image passes through this encoder once in its life; the cache is keyed by content hash.
    """
    if not sha256s:
        return np.empty((0, encoder.width), dtype=np.float32)
    encoder.to(encoding.machine.device).eval()
    name = fingerprint([encoder], encoder.decoding, encoding.machine)
    store = ArrayStore(encoding.cache / "encodings" / name)
    return encode_once(store, sha256s, encoder.decoding, lambda x: encoder(x)[0], encoding)


def load_training_images(
    encoder: ImageEncoder,
    sha256s: list[str],
    changes: Augment,
    seed: int,
    encoding: Encoding,
    *,
    tuned: bool,
) -> EncodedViews | Pixels:
    """Return images to train on: pixels if the encoder is ``tuned``, else its cached views."""
    if tuned:
        settings = encoding.settings
        pixels = LazyPixels(
            encoding.images,
            sha256s,
            encoder.decoding,
            threads=settings.threads,
            memory=int(settings.pixels_gigabytes * GIGABYTE),
        )
        return Pixels(pixels, encoder.decoding.size, changes)
    return encode_views(encoder, sha256s, changes, seed, encoding)


def encode_views(
    encoder: ImageEncoder, sha256s: list[str], changes: Augment, seed: int, encoding: Encoding
) -> EncodedViews:
    """Return ``changes.views`` views of each image through a frozen encoder, memory-mapped from the
    cache.

    The first view is the plain image, the others are changed at random (seeded). Disk: V · P · T ·
    2 bytes an image. Encoded again only if the encoder, the images or ``changes`` differ. A killed
    process continues where it was. Of the views, the KEPT_VIEWS used last are kept. All are
    compared with their checksums first; damaged ones are made again.
    """
    weights = fingerprint([encoder], encoder.decoding, encoding.machine)
    size = encoding.settings.batch_size
    key = digest(weights, sha256s, vars(changes), seed, size, augment.VERSION)[:16]
    folder = encoding.cache / "views" / key
    if not folder.exists() or _are_damaged(folder, size):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(encoding.cache / "views.lock"):
            if folder.exists() and _are_damaged(folder, size):
                warnings.warn(f"{folder} is damaged and made again", IrgenWarning, stacklevel=2)
                shutil.rmtree(folder)
            if not folder.exists():  # another process may have written it meanwhile
                partial = folder.with_name(f".{key}.part")
                _write_views(encoder, sha256s, changes, seed, encoding, partial)
                partial.replace(folder)
                delete_oldest(folder.parent.iterdir(), KEPT_VIEWS)
    os.utime(folder)  # it was used last
    return EncodedViews(*(np.load(folder / name, mmap_mode="r") for name in VIEWS))


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


@torch.inference_mode()
def _write_views(
    encoder: ImageEncoder,
    sha256s: list[str],
    changes: Augment,
    seed: int,
    encoding: Encoding,
    folder: Path,
) -> None:
    """Write VIEWS and their checksums SUMS into ``folder``, a view of all images after the other.
    ``done.json`` counts the batches that are written: a killed process continues there."""
    shape, machine = (len(sha256s), changes.views), encoding.machine
    grid, size = (encoder.token_count, encoder.token_width), encoding.settings.batch_size
    is_begun = (folder / SUMS).exists() and (folder / "done.json").exists()
    done = read_json(folder / "done.json") if is_begun else 0
    mode: Literal["r+", "w+"] = "r+" if done else "w+"
    folder.mkdir(exist_ok=True)
    memmap, batches = np.lib.format.open_memmap, -(-len(sha256s) // size)
    summaries = memmap(folder / "summaries.npy", mode, np.float32, (*shape, encoder.width))
    tokens = memmap(folder / "tokens.npy", mode, np.float16, (*shape, *grid))
    sums = memmap(folder / SUMS, mode, np.uint32, (changes.views, batches, 2))
    encoder.to(machine.device).eval()
    for view in range(changes.views):
        title, first = f"view {view + 1} of {changes.views}", max(done - view * batches, 0)
        rest = stream_batches(sha256s[first * size :], encoder.decoding, encoding, title)
        for i, (batch, new) in enumerate(rest, first):
            if view:
                generator = seed_everything(seed, view, i)
                batch = augment.augment(batch, changes, encoder.decoding.size, generator)
            with machine.precision():
                summary, grids = encoder(batch.to(machine.device))
            check_finite(summary, "encoded views", NOT_FINITE)
            check_finite(grids.half(), "tokens of encoded views, in 16 bits", NOT_FINITE)
            rows = slice(i * size, i * size + new)
            summaries[rows, view] = summary[:new].float().cpu().numpy()
            tokens[rows, view] = grids[:new].half().cpu().numpy()
            sums[view, i] = _sum(summaries[rows, view]), _sum(tokens[rows, view])
            for array in (summaries, tokens, sums):
                array.flush()
            write_json(folder / "done.json", view * batches + i + 1)
