"""Encode images: an image passes through an encoder once in its life."""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from irgen.catalog.images import pixels as images
from irgen.catalog.images.pixels import Decoding, read_pixels
from irgen.catalog.shards import Images
from irgen.compute import cluster
from irgen.compute.checks import check_finite
from irgen.compute.machine import Machine, prepare
from irgen.encoding.cache import ArrayStore
from irgen.encoding.image_batches import BatchEncoder, ImageBatches
from irgen.encoding.lazy_pixels import LazyPixels
from irgen.files.digests import digest
from irgen.files.hash_rows import Hashes, pack_hashes
from irgen.files.room import GIGABYTE, require_room
from irgen.files.workspace import Workspace
from irgen.models import encoder as encoder_module
from irgen.models.encoder import ImageEncoder
from irgen.params import Compute

SHARD, SECONDS = 64, 30.0  # a killed process loses at most so many batches, and so much time
NOT_FINITE = "set compute.precision to fp32, or choose another encoder or other weights"


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Images, machine and cache of a project, for encoding.

    ``encoder_machine`` encodes what is cached: this machine, or one of a cluster.
    """

    images: Images
    machine: Machine
    encoder_machine: Machine
    settings: Compute
    cache: Path


def open_encoding(settings: Compute, workspace: Workspace) -> Encoding:
    """Open a project's downloaded images and its cache, on the machine chosen by ``settings``.
    Raises ClusterError if a cluster is named there that does not answer."""
    machine, is_remote = prepare(settings), settings.engine == "ray" and settings.address
    return Encoding(
        images=Images(workspace.existing("download")),
        machine=machine,
        encoder_machine=cluster.choose_machine(settings) if is_remote else machine,
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
    batches = open_batches(sha256s, decoding, encoding)
    numbers = range(len(batches))
    stream = batches.decode(numbers, encoding.settings.threads)
    with tqdm(total=len(sha256s), desc=title, unit="image", leave=False, disable=None) as bar:
        for number, pixels in zip(numbers, stream, strict=True):
            new = batches.count(number)
            yield torch.from_numpy(pixels), new
            bar.update(new)


def open_batches(sha256s: Hashes, decoding: Decoding, encoding: Encoding) -> ImageBatches:
    """Return images in batches of exactly the batch size."""
    return ImageBatches(
        images=encoding.images,
        keys=pack_hashes(sha256s),
        decoding=decoding,
        size=encoding.settings.batch_size,
    )


def encode_batches(
    batches: ImageBatches,
    encoder: BatchEncoder,
    numbers: Sequence[int],
    encoding: Encoding,
    title: str,
) -> Generator[tuple[int, list[np.ndarray]]]:
    """Yield the number of each batch with its arrays (n, …) of the images that are new in it; on a
    cluster in any order. Close the iterator if its end is not reached."""
    if not numbers:
        return
    results = ENGINES[encoding.settings.engine](batches, encoder, numbers, encoding)
    counts = {number: batches.count(number) for number in numbers}
    total = sum(counts.values())
    with tqdm(total=total, desc=title, unit="image", leave=False, disable=None) as bar:
        for number, arrays in results:
            yield number, [array[: counts[number]] for array in arrays]
            bar.update(counts[number])


def _encode_here(
    batches: ImageBatches, encoder: BatchEncoder, numbers: Sequence[int], encoding: Encoding
) -> Iterator[tuple[int, list[np.ndarray]]]:
    encode = encoder.load(encoding.encoder_machine)
    stream = batches.decode(numbers, encoding.settings.threads)
    for number, pixels in zip(numbers, stream, strict=True):
        yield number, encode(number, pixels)


def _encode_on_cluster(
    batches: ImageBatches, encoder: BatchEncoder, numbers: Sequence[int], encoding: Encoding
) -> Iterator[tuple[int, list[np.ndarray]]]:
    encoder.model.to(torch.device("cpu"))  # it travels to machines that may have no GPU
    machine = encoding.encoder_machine
    decided = replace(encoding.settings, device=machine.device.type, precision=machine.decoder)
    with cluster.connect(decided):
        cluster.require_folder(encoding.images.folder)
        yield from cluster.map_batches(numbers, batches.decode_batch, encoder.load, decided)


ENGINES = {"local": _encode_here, "ray": _encode_on_cluster}


def encode_once(
    store: ArrayStore,
    sha256s: Hashes,
    decoding: Decoding,
    encoder: BatchEncoder,
    encoding: Encoding,
) -> None:
    """Bring an array (D,) float32 of each image into ``store``.

    Only images that it lacks are encoded; the first tensor (B, D) of ``encoder`` is kept. Batches
    are always full, so no result depends on what is stored. Raises NumberError, having stored none
    of it, if a result is not finite; RoomError, before the rest is encoded, if the disk has no room
    for it.
    """
    missing, stored = [sha256s[row] for row in store.missing(sha256s)], 0
    batches = open_batches(missing, decoding, encoding)
    numbers = range(len(batches))
    with closing(encode_batches(batches, encoder, numbers, encoding, "encode")) as encoded:
        while shard := _collect(encoded):
            values = np.concatenate([arrays[0] for _, arrays in shard])
            check_finite(torch.from_numpy(values), "encoded images", NOT_FINITE)
            hashes = [sha256 for number, _ in shard for sha256 in batches.hashes(number)]
            store.add(hashes, values)
            stored += len(values)
            rest = len(missing) - stored
            require_room(store.folder, rest * values[0].nbytes, f"encodings of {rest:,} images")


def _collect(
    encoded: Iterator[tuple[int, list[np.ndarray]]],
) -> list[tuple[int, list[np.ndarray]]]:
    """Return the next results, of at most SHARD batches, or of SECONDS."""
    end, shard = monotonic() + SECONDS, []
    for result in islice(encoded, SHARD):
        shard.append(result)
        if monotonic() > end:
            break
    return shard


def encode_summaries(encoder: ImageEncoder, sha256s: list[str], encoding: Encoding) -> np.ndarray:
    """Return encoder summaries (N, S) float32 of images, row-aligned with ``sha256s``."""
    if not sha256s:
        return np.empty((0, encoder.width), dtype=np.float32)
    return store_summaries(encoder, sha256s, encoding).get(sha256s)


def store_summaries(encoder: ImageEncoder, sha256s: Hashes, encoding: Encoding) -> ArrayStore:
    """Return a store that has the encoder's summary (S,) float32 of each image.

    An image passes through this encoder once in its life; the store is keyed by content hash.
    """
    name = fingerprint([encoder], encoder.decoding, encoding.encoder_machine)
    store = ArrayStore(encoding.cache / "encodings" / name)
    summaries = BatchEncoder(encoder.eval(), _summarize)
    encode_once(store, sha256s, encoder.decoding, summaries, encoding)
    return store


def _summarize(
    encoder: ImageEncoder, machine: Machine, number: int, pixels: Tensor
) -> Sequence[Tensor]:
    return [encoder(pixels.to(machine.device))[0].float()]
