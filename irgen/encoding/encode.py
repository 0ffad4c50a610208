"""Encode images: an image passes through an encoder once in its life."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from irgen.catalog.images import pixels as images
from irgen.catalog.images.pixels import Decoding, read_pixels, stream_pixels
from irgen.catalog.shards import Images
from irgen.compute.batches import full_batches
from irgen.compute.checks import check_finite
from irgen.compute.machine import Machine, prepare
from irgen.encoding.cache import ArrayStore
from irgen.encoding.lazy_pixels import LazyPixels
from irgen.files.digests import digest
from irgen.files.room import GIGABYTE, require_room
from irgen.files.workspace import Workspace
from irgen.models import encoder as encoder_module
from irgen.models.encoder import ImageEncoder
from irgen.params import Compute

SHARD, SECONDS = 64, 30.0  # a killed process loses at most so many batches, and so much time
NOT_FINITE = "set compute.precision to fp32, or choose another encoder or other weights"


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


def open_pixels(encoder: ImageEncoder, sha256s: list[str], encoding: Encoding) -> LazyPixels:
    """Return images (N, C, H, H) uint8 as ``encoder`` wants them, decoded when they are needed;
    ``compute.pixels_gigabytes`` of them are kept in memory, by all processes together."""
    memory = encoding.settings.pixels_gigabytes * GIGABYTE / encoding.machine.world.local_size
    return LazyPixels(
        encoding.images,
        sha256s,
        encoder.decoding,
        threads=encoding.settings.threads,
        memory=int(memory),
    )


def stream_batches(
    sha256s: list[str], decoding: Decoding, encoding: Encoding, title: str
) -> Iterator[tuple[Tensor, int]]:
    """Yield decoded images (B, C, H, H) uint8 in batches of exactly the batch size, and how many
    of each are new: the last batch is filled up with its last image."""
    size, threads = encoding.settings.batch_size, encoding.settings.threads
    stream = stream_pixels(encoding.images, sha256s, decoding, batch_size=size, threads=threads)
    with tqdm(total=len(sha256s), desc=title, unit="image", leave=False, disable=None) as bar:
        for batch in stream:
            new = len(batch)
            if len(batch) < size:
                batch = batch[next(full_batches(len(batch), size))[0].numpy()]
            yield torch.from_numpy(batch), new
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
    Raises NumberError, having stored none of it, if a result is not finite; RoomError, before the
    rest is encoded, if the disk has no room for it.
    """
    missing, stored = [sha256s[row] for row in store.missing(sha256s)], 0

    def rows() -> Iterator[np.ndarray]:
        for batch, new in stream_batches(missing, decoding, encoding, "encode"):
            with encoding.machine.precision():
                yield encode(batch.to(encoding.machine.device))[:new].float().cpu().numpy()

    encoded = rows()
    while shard := _collect(encoded):
        values = np.concatenate(shard)
        check_finite(torch.from_numpy(values), "encoded images", NOT_FINITE)
        store.add(missing[stored : stored + len(values)], values)
        stored += len(values)
        rest = len(missing) - stored
        require_room(store.folder, rest * values[0].nbytes, f"encodings of {rest:,} images")
    return store.get(sha256s)


def _collect(encoded: Iterator[np.ndarray]) -> list[np.ndarray]:
    """Return the next results, of at most SHARD batches, or of SECONDS."""
    end, shard = monotonic() + SECONDS, []
    for values in islice(encoded, SHARD):
        shard.append(values)
        if monotonic() > end:
            break
    return shard


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
