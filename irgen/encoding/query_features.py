"""What a search's models make of an image, kept by its content: the same queries are asked again
and again, by several stages, and are read once by the same models."""

import hashlib
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from irgen.catalog import images
from irgen.catalog.images import stream_pixels
from irgen.checkpoints.models import Models
from irgen.compute import Machine
from irgen.encoding.batches import full_batches
from irgen.encoding.cache import ArrayStore
from irgen.encoding.encode import Encoding, code_of
from irgen.files import digest
from irgen.models import encoder, retriever
from irgen.search.engine import QueryFeatures

SHARD = 64  # batches that a kill loses at most


def encode_queries(models: Models, sha256s: list[str], encoding: Encoding) -> QueryFeatures:
    """What ``models.encode`` makes of images, row-aligned with ``sha256s``, in the machine's
    precision, on the CPU.

    Only images that these models have never read pass through them, in batches that are always
    full, so the result does not depend on what is kept.
    """
    if not sha256s:
        return _parts(np.empty((0, _width(models)), np.float32), models)
    size = encoding.settings.batch_size
    name = digest(_fingerprint(models, encoding.machine), size)[:16]
    store = ArrayStore(encoding.cache / "query_features" / name)
    missing = [sha256s[row] for row in store.missing(sha256s)]
    for start in range(0, len(missing), SHARD * size):
        part = missing[start : start + SHARD * size]
        store.add(part, _read(models, part, encoding))
    return _parts(store.get(sha256s), models)


def select_queries(read: QueryFeatures, rows: Tensor, device: torch.device) -> QueryFeatures:
    """The given rows of what was read, on ``device``."""
    return QueryFeatures(
        *(part[rows].to(device) for part in (read.summary, read.tokens, read.embedding))
    )


def _read(models: Models, sha256s: list[str], encoding: Encoding) -> np.ndarray:
    """A row an image: summary, tokens and embedding, one after the other, float32."""
    size, threads = encoding.settings.batch_size, encoding.settings.threads
    made = []
    for pixels in stream_pixels(
        encoding.images, sha256s, models.decoding, batch_size=size, threads=threads
    ):
        rows, new = next(full_batches(len(pixels), size))
        with encoding.machine.precision():
            read = models.encode(torch.from_numpy(pixels[rows.numpy()]))
        parts = (read.summary, read.tokens.flatten(1), read.embedding)
        made.append(torch.cat([part.float().cpu() for part in parts], 1)[:new].numpy())
    return np.concatenate(made)


def _parts(flat: np.ndarray, models: Models) -> QueryFeatures:
    encoder, width = models.query_encoder.encoder, models.tokenizer.codebooks.shape[-1]
    cells, rows = encoder.token_count * encoder.token_width, torch.from_numpy(flat)
    summary = rows.shape[1] - cells - width
    tokens = rows[:, summary : summary + cells]
    return QueryFeatures(
        rows[:, :summary],
        tokens.reshape(-1, encoder.token_count, encoder.token_width),
        rows[:, summary + cells :],
    )


def _width(models: Models) -> int:
    encoder, embedding = models.query_encoder.encoder, models.tokenizer.codebooks.shape[-1]
    summary = encoder.width if models.query_encoder.adapter is None else embedding
    return summary + encoder.token_count * encoder.token_width + embedding


def _fingerprint(models: Models, machine: Machine) -> str:
    """A digest of all that decides what is read: weights, decoding, precision."""
    modules = (models.query_encoder, models.tokenizer, models.encoder)
    tensors = chain.from_iterable(module.state_dict().items() for module in modules)
    content = hashlib.sha256()
    for name, tensor in tensors:
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest(
        content.hexdigest(),
        vars(models.decoding),
        str(machine.autocast),
        str(machine.device.type),
        code_of(images, encoder, retriever),
    )
