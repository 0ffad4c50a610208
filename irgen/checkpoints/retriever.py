"""The retriever's file: the decoder and, where it was tuned, the reader."""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

from irgen.checkpoints import tensor_file
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.encoder import ImageEncoder
from irgen.models.retriever import QueryEncoder, Retriever
from irgen.models.tokenizer import Tokenizer
from irgen.params import Retriever as Settings
from irgen.params.strict import parse


def save_retriever(path: Path, model: Retriever, settings: Settings) -> None:
    """Writes decoder and, where it was tuned, reader."""
    config = {"retriever": asdict(settings), "shape": asdict(model.decoder.shape)}
    tensor_file.save(path, model.state_dict(), config)


def load_retriever(path: Path, reader: QueryEncoder) -> Retriever:
    """The trained retriever in eval mode, with ``reader`` as the frozen reader or, if it was tuned,
    as the architecture its weights are loaded into."""
    settings, shape = read_settings(path)
    tensors, _ = tensor_file.load(path)
    decoder = IdentifierDecoder(settings, shape)
    model = Retriever(deepcopy(reader) if settings.tune_encoder else None, decoder)
    tensor_file.load_into(model, tensors, path)
    model.reader = model.reader or reader
    return model.eval()


def read_settings(path: Path) -> tuple[Settings, Shape]:
    """What a retriever's file says it is. Raises ArtifactError for a file of something else."""
    config = tensor_file.load_config(path, "retriever", "shape")
    settings = parse(Settings, config["retriever"], where=str(path))
    return settings, parse(Shape, config["shape"], where=str(path))


def frozen_reader(pretrained: ImageEncoder, tokenizer: Tokenizer, source: str) -> QueryEncoder:
    """The reader a retriever starts from: ``source`` = pretrained, or tokenizer (then it shares the
    tokenizer's adapter, and its encoder if that one was tuned)."""
    if source == "tokenizer":
        return QueryEncoder(tokenizer.encoder or pretrained, tokenizer.adapter)
    return QueryEncoder(pretrained, None)
