"""All the networks a search needs, as one object that reads pixels, and as one folder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irgen.catalog.images import Decoding
from irgen.checkpoints import tensor_file
from irgen.checkpoints.retriever import frozen_reader, load_retriever, read_settings, save_retriever
from irgen.checkpoints.tokenizer import load_tokenizer, save_tokenizer
from irgen.checkpoints.weights import untrained_encoder
from irgen.errors import ArtifactError
from irgen.models.encoder import ImageEncoder
from irgen.models.retriever import QueryEncoder, Retriever
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
    """The tokenizer, the retriever, and the pretrained encoder where one of them reads by it.

    Who encodes what follows from which modules are shared: the tokenizer's adapter reads summaries
    of its own tuned encoder or, without one, of the pretrained encoder; the retriever's reader is
    one of these two encoders or a tuned copy, with that adapter behind it or none. ``labels`` are
    the tokenizer's class names.
    """

    tokenizer: Tokenizer
    query: Retriever
    pretrained: ImageEncoder | None
    labels: list[str]

    @property
    def encoder(self) -> ImageEncoder:
        """The encoder whose summaries the tokenizer adapts."""
        found = self.tokenizer.encoder or self.pretrained
        assert found is not None, "a tokenizer without an encoder reads by the pretrained one"
        return found

    @property
    def reader(self) -> QueryEncoder:
        """What reads the retriever's queries."""
        assert self.query.reader is not None, "a query is read from pixels"
        return self.query.reader

    @property
    def decoding(self) -> Decoding:
        """The images all of them read."""
        return self.reader.encoder.decoding

    @property
    def device(self) -> torch.device:
        """Where the models are, and what they give back."""
        return self.tokenizer.codebooks.device

    def to(self, device: torch.device) -> "Models":
        """These very models, moved to ``device``, in eval mode."""
        for module in (self.tokenizer, self.query, self.pretrained):
            if module is not None:
                module.eval().to(device)
        return self

    @torch.inference_mode()
    def read(self, pixels: Tensor) -> QueryFeatures:
        """What a search needs of images (B, C, H, W) of 0 … 255; no encoder runs twice."""
        pixels = pixels.to(self.device)
        summary, tokens = self.reader(pixels)
        if self.reader.encoder is not self.encoder:
            embedding = self.embed(pixels)
        elif self.reader.adapter is None:
            embedding = self.tokenizer.adapt(summary)
        else:  # the reader's adapter is the tokenizer's
            embedding = summary
        return QueryFeatures(summary.float(), tokens.float(), embedding)

    @torch.inference_mode()
    def embed(self, pixels: Tensor) -> Tensor:
        """Tuned embeddings (B, D), unit, float32, of images (B, C, H, W) of 0 … 255. An image's
        embedding depends on the others of its batch by rounding alone."""
        return self.tokenizer.adapt(self.encoder(pixels.to(self.device))[0])

    @torch.inference_mode()
    def tokenize(self, embeddings: Tensor) -> Tensor:
        """Codes (N, M) int64 of unit embeddings (N, D)."""
        return self.tokenizer.tokenize(embeddings.to(self.device))


def assemble(tokenizer: Path, retriever: Path, pretrained: ImageEncoder) -> Models:
    """The models of these two files, in eval mode. ``pretrained`` is kept only where one of them
    reads by it."""
    tokens, labels = load_tokenizer(tokenizer)
    source = read_settings(retriever)[0].encoder
    query = load_retriever(retriever, frozen_reader(pretrained, tokens, source))
    assert query.reader is not None, "a loaded retriever reads pixels"
    needed = tokens.encoder is None or query.reader.encoder is pretrained
    kept = pretrained.eval() if needed else None
    return Models(tokenizer=tokens, query=query, pretrained=kept, labels=labels)


def save_models(
    folder: Path,
    models: Models,
    encoder: Encoder,
    tokenizer: TokenizerSettings,
    retriever: RetrieverSettings,
) -> None:
    """Writes three files that load without the original weights. The last arguments are the
    sections of params.yaml that the models were made by; equal models give equal bytes."""
    save_tokenizer(folder / TOKENIZER, models.tokenizer, encoder, tokenizer, models.labels)
    query = models.query if retriever.tune_encoder else Retriever(None, models.query.decoder)
    save_retriever(folder / RETRIEVER, query, retriever)
    kept = models.pretrained
    config = {"encoder": asdict(encoder), "kept": kept is not None, "reads": _reads(models.encoder)}
    tensor_file.save(folder / PRETRAINED, {} if kept is None else kept.state_dict(), config)


def load_models(folder: Path, device: torch.device) -> Models:
    """The models ``save_models`` wrote, on ``device``. Raises ArtifactError or another IrgenError
    if a file is missing, damaged or of something else, or if this version of timm builds another
    encoder."""
    path = folder / PRETRAINED
    config = tensor_file.load_config(path, "encoder", "kept", "reads")
    pretrained = untrained_encoder(parse(Encoder, config["encoder"], where=str(path)))
    if (reads := _reads(pretrained)) != config["reads"]:
        raise ArtifactError(
            f"{path}: the encoder was made to read {config['reads']}, but the installed timm makes "
            f"it read {reads}: install the version of timm that the models were trained with"
        )
    if config["kept"]:
        tensor_file.load_into(pretrained, tensor_file.load(path)[0], path)
    models = assemble(folder / TOKENIZER, folder / RETRIEVER, pretrained)
    if models.pretrained is not None and not config["kept"]:
        raise ArtifactError(f"{path} lacks the weights that its neighbours need; it is not theirs")
    return models.to(device)


def _reads(encoder: ImageEncoder) -> dict[str, Any]:
    """What an architecture wants its images to be like, as JSON gives it back."""
    means = {"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()}
    return asdict(encoder.decoding) | means
