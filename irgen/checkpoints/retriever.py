"""Save and load the retriever: the decoder and, if it was tuned, the query encoder."""

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
    """Write the decoder and, where it was tuned, the query encoder."""
    query_encoder = model.query_encoder if settings.tune_encoder else None
    config = {"retriever": asdict(settings), "shape": asdict(model.decoder.shape)}
    tensor_file.save(path, Retriever(query_encoder, model.decoder).state_dict(), config)


def load_retriever(path: Path, query_encoder: QueryEncoder) -> Retriever:
    """Return the trained retriever in eval mode.

    ``query_encoder`` is used as it is if it was frozen; if it was tuned, the file's weights are
    loaded into a copy of it.
    """
    settings, shape = read_settings(path)
    tensors, _ = tensor_file.load(path)
    decoder = IdentifierDecoder(settings, shape)
    model = Retriever(deepcopy(query_encoder) if settings.tune_encoder else None, decoder)
    tensor_file.load_into(model, tensors, path)
    model.query_encoder = model.query_encoder or query_encoder
    return model.eval()


def read_settings(path: Path) -> tuple[Settings, Shape]:
    """Return a retriever file's settings. Raises ArtifactError for a file of something else."""
    config = tensor_file.load_config(path, "retriever", "shape")
    settings = parse(Settings, config["retriever"], where=str(path))
    return settings, parse(Shape, config["shape"], where=str(path))


def initial_query_encoder(
    pretrained: ImageEncoder, tokenizer: Tokenizer, source: str
) -> QueryEncoder:
    """Return a new retriever's query encoder.

    ``source``: pretrained, or tokenizer: then it shares the tokenizer's adapter, and its encoder
    if that was tuned.
    """
    if source == "tokenizer":
        return QueryEncoder(tokenizer.encoder or pretrained, tokenizer.adapter)
    return QueryEncoder(pretrained, None)
