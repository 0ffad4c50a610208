"""Encode queries, cached by image content, since several stages search with the same ones."""

import torch
from torch import Tensor

from irgen.checkpoints.models import Models
from irgen.compute.machine import Machine
from irgen.encoding.cache import ArrayStore
from irgen.encoding.encode import Encoding, encode_once, fingerprint
from irgen.encoding.image_batches import BatchEncoder
from irgen.files.digests import digest
from irgen.search.engine import QueryFeatures


@torch.inference_mode()
def encode_queries(models: Models, sha256s: list[str], encoding: Encoding) -> QueryFeatures:
    """Return ``models.encode`` of images, row-aligned with ``sha256s``, on the CPU.

    An image passes through these models once, in the machine's precision.
    """
    if not sha256s:
        return _unpack(_pack(models, torch.empty(0, *models.decoding.shape)).cpu(), models)
    modules = [models.query_encoder, models.tokenizer, models.encoder]
    weights = fingerprint(modules, models.decoding, encoding.encoder_machine)
    tokens = models.query_encoder.encoder.token_count
    name = digest(weights, tokens, encoding.settings.batch_size)[:16]
    store = ArrayStore(encoding.cache / "query_features" / name)
    encode_once(store, sha256s, models.decoding, BatchEncoder(models, _encode), encoding)
    return _unpack(torch.from_numpy(store.get(sha256s)), models)


def select_queries(features: QueryFeatures, rows: Tensor, device: torch.device) -> QueryFeatures:
    """Return the features of the queries ``rows``, on ``device``."""
    parts = (features.summary, features.tokens, features.embedding)
    return QueryFeatures(*(part[rows].to(device) for part in parts))


def _encode(models: Models, machine: Machine, number: int, pixels: Tensor) -> list[Tensor]:
    return [_pack(models, pixels.to(machine.device))]


def _pack(models: Models, pixels: Tensor) -> Tensor:
    """Return summary, tokens and embedding of images side by side, a row an image."""
    features = models.encode(pixels)
    parts = (features.summary, features.tokens.flatten(1), features.embedding)
    return torch.cat([part.float() for part in parts], dim=1)


def _unpack(rows: Tensor, models: Models) -> QueryFeatures:
    """Undo ``_pack``."""
    encoder, width = models.query_encoder.encoder, models.tokenizer.codebooks.shape[-1]
    cells = encoder.token_count * encoder.token_width
    widths = [rows.shape[1] - cells - width, cells, width]
    summary, tokens, embedding = rows.split(widths, dim=1)
    grid = (encoder.token_count, encoder.token_width)
    return QueryFeatures(summary, tokens.unflatten(1, grid), embedding)
