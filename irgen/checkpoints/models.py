"""Load and save all networks that a search needs, in one folder."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.catalog.images.pixels import Decoding
from irgen.checkpoints import tensor_file
from irgen.checkpoints.retriever import (
    initial_query_encoder,
    load_retriever,
    read_settings,
    save_retriever,
)
from irgen.checkpoints.text import TEXT_ENCODER, load_text_encoder, save_text_encoder
from irgen.checkpoints.tokenizer import load_tokenizer, save_tokenizer
from irgen.checkpoints.weights import untrained_encoder
from irgen.compute.checks import check_finite
from irgen.errors import ArtifactError
from irgen.models.encoder import ImageEncoder
from irgen.models.retriever import QueryEncoder, Retriever
from irgen.models.text import TextEncoder, compose, shape_memory, split_words
from irgen.models.tokenizer import Tokenizer
from irgen.params import Encoder
from irgen.params import Retriever as RetrieverSettings
from irgen.params import Tokenizer as TokenizerSettings
from irgen.params.strict import parse
from irgen.search.engine import QueryFeatures

TOKENIZER, RETRIEVER = "tokenizer.safetensors", "retriever.safetensors"
PRETRAINED = "pretrained.safetensors"


@dataclass(frozen=True, kw_only=True)
class Models:
    """Tokenizer, retriever, the pretrained encoder if one of them uses it, and the text encoder if
    the images that they were trained on have texts.

    Modules are shared: the tokenizer's adapter follows its own tuned encoder or, without one, the
    pretrained encoder; the retriever's query encoder is one of these two or a tuned copy, with that
    adapter behind it or none. ``labels`` are the tokenizer's class names.
    """

    tokenizer: Tokenizer
    retriever: Retriever
    pretrained: ImageEncoder | None
    labels: list[str]
    text_encoder: TextEncoder | None = None

    @property
    def encoder(self) -> ImageEncoder:
        """Return the encoder whose summaries the tokenizer adapts."""
        encoder = self.tokenizer.encoder or self.pretrained
        assert encoder is not None, "a tokenizer without an encoder needs the pretrained one"
        return encoder

    @property
    def query_encoder(self) -> QueryEncoder:
        """Return the retriever's encoder of queries."""
        assert self.retriever.query_encoder is not None, "a query is encoded from pixels"
        return self.retriever.query_encoder

    @property
    def decoding(self) -> Decoding:
        """Return the input format of all encoders."""
        return self.query_encoder.encoder.decoding

    @property
    def device(self) -> torch.device:
        """Return the device of the models and their results."""
        return self.tokenizer.codebooks.device

    def to(self, device: torch.device) -> "Models":
        """Move these models to ``device``, in eval mode, and return them."""
        for module in (self.tokenizer, self.retriever, self.pretrained, self.text_encoder):
            if module is not None:
                module.eval().to(device)
        return self

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> QueryFeatures:
        """Encode images (B, C, H, W) of 0 … 255 for a search; no encoder runs twice. Raises
        NumberError if an embedding is not finite."""
        pixels = pixels.to(self.device)
        summary, tokens = self.query_encoder(pixels)
        if self.query_encoder.encoder is not self.encoder:
            embedding = self.embed(pixels)
        elif self.query_encoder.adapter is None:
            embedding = self.tokenizer.adapt(summary)
        else:  # the query encoder's adapter is the tokenizer's
            embedding = summary
        check_finite(embedding, "embeddings of queries", "set compute.precision to fp32")
        return QueryFeatures(summary.float(), tokens.float(), embedding)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> QueryFeatures:
        """Encode queries in words for a search; only if there is a ``text_encoder``."""
        assert self.text_encoder is not None, "texts are encoded by a text encoder"
        numbers = self.text_encoder.number([split_words(text) for text in texts])
        embedding, states = self.text_encoder(numbers.to(self.device))
        summary, tokens = shape_memory(embedding, states, self.retriever.decoder.shape)
        return QueryFeatures(summary, tokens, embedding)

    @torch.inference_mode()
    def embed(self, pixels: Tensor) -> Tensor:
        """Return unit embeddings (B, D) float32 of images (B, C, H, W) of 0 … 255. Except for
        rounding, an embedding does not depend on the batch."""
        return self.tokenizer.adapt(self.encoder(pixels.to(self.device))[0])

    @torch.inference_mode()
    def tokenize(self, embeddings: Tensor) -> Tensor:
        """Return codes (N, M) int64 of unit embeddings (N, D)."""
        return self.tokenizer.tokenize(embeddings.to(self.device))


def compose_queries(pictures: QueryFeatures, words: QueryFeatures) -> QueryFeatures:
    """Return queries (Q) of a picture together with words. The embedding is the direction between
    the two."""
    return QueryFeatures(
        compose(pictures.summary, words.summary),
        compose(pictures.tokens, words.tokens),
        F.normalize(pictures.embedding + words.embedding, dim=-1),
    )


def assemble(tokenizer_path: Path, retriever_path: Path, pretrained: ImageEncoder) -> Models:
    """Load the models of these two files, in eval mode. ``pretrained`` is part of the result only
    if one of them uses it."""
    tokenizer, labels = load_tokenizer(tokenizer_path)
    source = read_settings(retriever_path)[0].encoder
    retriever = load_retriever(retriever_path, initial_query_encoder(pretrained, tokenizer, source))
    assert retriever.query_encoder is not None, "a loaded retriever encodes pixels"
    is_used = tokenizer.encoder is None or retriever.query_encoder.encoder is pretrained
    shared = pretrained.eval() if is_used else None
    return Models(tokenizer=tokenizer, retriever=retriever, pretrained=shared, labels=labels)


def save_models(
    folder: Path,
    models: Models,
    encoder: Encoder,
    tokenizer: TokenizerSettings,
    retriever: RetrieverSettings,
) -> None:
    """Write three files that load without the original weights, and a fourth if there is a text
    encoder. The last three arguments are the sections of params.yaml that the models were made by.
    Equal models give equal bytes."""
    save_tokenizer(folder / TOKENIZER, models.tokenizer, encoder, tokenizer, models.labels)
    save_retriever(folder / RETRIEVER, models.retriever, retriever)
    if models.text_encoder is not None:
        save_text_encoder(folder / TEXT_ENCODER, models.text_encoder)
    kept = models.pretrained
    config = {
        "encoder": asdict(encoder),
        "kept": kept is not None,
        "inputs": _inputs(models.encoder),
    }
    tensor_file.save(folder / PRETRAINED, {} if kept is None else kept.state_dict(), config)


def load_models(folder: Path, device: torch.device) -> Models:
    """Load models on ``device``. Raises ArtifactError or another IrgenError if a file is missing,
    damaged or not a model's, or if the installed timm builds another encoder."""
    path = folder / PRETRAINED
    config = tensor_file.load_config(path, "encoder", "kept", "inputs")
    pretrained = untrained_encoder(parse(Encoder, config["encoder"], where=str(path)))
    if (inputs := _inputs(pretrained)) != config["inputs"]:
        raise ArtifactError(
            f"{path}: the encoder was trained on {config['inputs']}, but the installed timm "
            f"gives it {inputs}: install the version of timm that the models were trained with"
        )
    if config["kept"]:
        tensor_file.load_into(pretrained, tensor_file.load(path)[0], path)
    models = assemble(folder / TOKENIZER, folder / RETRIEVER, pretrained)
    if models.pretrained is not None and not config["kept"]:
        raise ArtifactError(
            f"{path} lacks the weights that the files beside it need: copy all again"
        )
    if (folder / TEXT_ENCODER).exists():  # an index of images without texts has none
        models = replace(models, text_encoder=load_text_encoder(folder / TEXT_ENCODER))
    return models.to(device)


def _inputs(encoder: ImageEncoder) -> dict[str, Any]:
    """Return an encoder's decoding and normalisation, as JSON gives them back."""
    means = {"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()}
    return asdict(encoder.decoding) | means
