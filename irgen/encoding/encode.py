"""Images through an encoder: once in their life for the summaries, cached views for frozen
training."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from irgen.catalog import images as images_module
from irgen.catalog.images import read_pixels, stream_pixels
from irgen.catalog.shards import Images
from irgen.compute import Machine, prepare, seed_everything
from irgen.encoding import augment as augment_module
from irgen.encoding.augment import augment
from irgen.encoding.batches import EncodedViews
from irgen.encoding.cache import ArrayStore
from irgen.files import atomic, digest, file_digest
from irgen.models import encoder as encoder_module
from irgen.models.encoder import ImageEncoder
from irgen.params import Augment, Compute
from irgen.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What encoding needs beside the encoder: the images, the machine, and the cache."""

    images: Images
    machine: Machine
    settings: Compute
    cache: Path


def open_encoding(settings: Compute, workspace: Workspace) -> Encoding:
    """A project's downloaded images and its cache, on the machine ``settings`` choose."""
    return Encoding(
        images=Images(workspace.existing("download")),
        machine=prepare(settings),
        settings=settings,
        cache=workspace.cache,
    )


def encoder_fingerprint(encoder: ImageEncoder, machine: Machine) -> str:
    """A digest of all that decides what an encoder makes of an image: weights, decoding,
    precision, and the code that decodes and encodes."""
    tensors = {
        name: digest(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes().hex()
        )
        for name, tensor in encoder.state_dict().items()
    }
    decoding, code = astuple(encoder.decoding), code_of(images_module, encoder_module)
    return digest(tensors, decoding, str(machine.autocast), machine.device.type, code)[:16]


def code_of(*modules: ModuleType) -> list[str]:
    """Digests of modules' files: what they make is made again when they change."""
    return [file_digest(Path(str(module.__file__))) for module in modules]


def decode_pixels(encoder: ImageEncoder, sha256s: list[str], encoding: Encoding) -> np.ndarray:
    """Decoded images (N, C, H, H) uint8 as ``encoder`` wants them, all in memory."""
    threads = encoding.settings.threads
    return read_pixels(encoding.images, sha256s, encoder.decoding, threads=threads)


@torch.inference_mode()
def encode_summaries(encoder: ImageEncoder, sha256s: list[str], encoding: Encoding) -> np.ndarray:
    """Encoder summaries (N, S) float32 of images, row-aligned with ``sha256s``.

    Only images this encoder has never seen pass through it; the others come from the cache, which
    is keyed by content hash. Batches are always full, so the result does not depend on what is
    cached.
    """
    store = ArrayStore(
        encoding.cache / "encodings" / encoder_fingerprint(encoder, encoding.machine)
    )
    missing = list(dict.fromkeys(sha256s[row] for row in store.missing(sha256s)))
    encoder.to(encoding.machine.device).eval()
    done: list[str] = []
    waiting: list[np.ndarray] = []
    for batch in _batches(encoder, missing, encoding, "encoding"):
        waiting.append(
            _encode(encoder, batch, encoding)[0].cpu().numpy()[: len(missing) - len(done)]
        )
        done += missing[len(done) : len(done) + len(waiting[-1])]
        if len(waiting) >= 64 or len(done) == len(missing):  # a kill loses a shard's worth at most
            values = np.concatenate(waiting)
            store.add(done[len(done) - len(values) :], values)
            waiting = []
    return store.get(sha256s) if sha256s else np.empty((0, encoder.width), dtype=np.float32)


def _encode(encoder: ImageEncoder, batch: Tensor, encoding: Encoding) -> tuple[Tensor, Tensor]:
    with encoding.machine.precision():
        summary, tokens = encoder(batch.to(encoding.machine.device))
    return summary.float(), tokens


def _batches(
    encoder: ImageEncoder, sha256s: list[str], encoding: Encoding, title: str
) -> Iterator[Tensor]:
    """Decoded images in batches of exactly the batch size, the last one filled up with blanks."""
    size, threads = encoding.settings.batch_size, encoding.settings.threads
    stream = stream_pixels(
        encoding.images, sha256s, encoder.decoding, batch_size=size, threads=threads
    )
    with tqdm(total=len(sha256s), desc=title, unit="image", leave=False, disable=None) as bar:
        for batch in stream:
            padded = np.zeros((size, *batch.shape[1:]), dtype=batch.dtype)
            padded[: len(batch)] = batch
            yield torch.from_numpy(padded)
            bar.update(len(batch))


@torch.inference_mode()
def encode_views(
    encoder: ImageEncoder, sha256s: list[str], changes: Augment, seed: int, encoding: Encoding
) -> EncodedViews:
    """``changes.views`` views of each image through a frozen encoder, memory-mapped from the cache.

    The first view is the plain image, the others are changed at random (seeded). Disk: V · P · T ·
    2 bytes an image. Made again only if the encoder, the images or ``changes`` differ.
    """
    how = (vars(changes), seed, encoding.settings.batch_size, code_of(augment_module))
    key = digest(encoder_fingerprint(encoder, encoding.machine), sha256s, *how)[:16]
    folder = encoding.cache / "views" / key
    if not folder.exists():
        with atomic(folder) as temporary:
            temporary.mkdir(parents=True)
            _write_views(encoder, sha256s, changes, seed, encoding, temporary)
    return EncodedViews(
        np.load(folder / "summaries.npy", mmap_mode="r"),
        np.load(folder / "tokens.npy", mmap_mode="r"),
    )


def _write_views(
    encoder: ImageEncoder,
    sha256s: list[str],
    changes: Augment,
    seed: int,
    encoding: Encoding,
    folder: Path,
) -> None:
    shape = (len(sha256s), changes.views)
    grid = (encoder.token_count, encoder.token_width)
    summaries_ = np.lib.format.open_memmap(
        folder / "summaries.npy", "w+", np.float32, (*shape, encoder.width)
    )
    tokens_ = np.lib.format.open_memmap(folder / "tokens.npy", "w+", np.float16, (*shape, *grid))
    encoder.to(encoding.machine.device).eval()
    size = encoding.settings.batch_size
    for view in range(changes.views):
        batches = _batches(encoder, sha256s, encoding, f"view {view + 1} of {changes.views}")
        for i, batch in enumerate(batches):
            if view:
                chance = seed_everything(seed, view, i)
                batch = augment(batch, changes, encoder.decoding.size, chance)
            summary, tokens = _encode(encoder, batch, encoding)
            rows = slice(i * size, min((i + 1) * size, len(sha256s)))
            count = rows.stop - rows.start
            summaries_[rows, view] = summary[:count].cpu().numpy()
            tokens_[rows, view] = tokens[:count].half().cpu().numpy()
    summaries_.flush()
    tokens_.flush()
