"""The trained models and the identifiers on disk: each file rebuilds what it holds by itself."""

from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.errors import ArtifactError
from irgen.files import atomic, read_array, write_array
from irgen.models.encoder import ImageEncoder
from irgen.models.reader import Query, Reader
from irgen.models.retriever import Retriever, Shape
from irgen.models.tokenizer import Tokenizer
from irgen.params import Encoder, parse
from irgen.params import Retriever as RetrieverSettings
from irgen.params import Tokenizer as TokenizerSettings
from irgen.search import trie
from irgen.training import checkpoint
from irgen.weights import untrained_encoder
from irgen.workspace import Workspace


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """The curves of a training as CSV, one row an epoch, blank where nothing was measured."""
    with atomic(path) as temporary:
        pl.DataFrame(history, infer_schema_length=None).write_csv(temporary)


def save_tokenizer(
    path: Path, model: Tokenizer, encoder: Encoder, settings: TokenizerSettings, labels: list[str]
) -> None:
    """Writes the tokenizer with all it takes to load it: configuration and class names."""
    config = {"encoder": asdict(encoder), "tokenizer": asdict(settings), "labels": labels}
    checkpoint.save(path, model.state_dict(), config | {"summary_width": summary_width(model)})


def summary_width(model: Tokenizer) -> int:
    """S, the width of the encoder summaries a tokenizer's adapter reads."""
    return model.adapter[0].normalized_shape[0]


def load_tokenizer(path: Path) -> tuple[Tokenizer, list[str]]:
    """The trained tokenizer in eval mode and its class names."""
    tensors, config = checkpoint.load(path)
    settings = parse(TokenizerSettings, config["tokenizer"], where=str(path))
    encoder = parse(Encoder, config["encoder"], where=str(path))
    own = untrained_encoder(encoder) if settings.tune_encoder else None
    model = Tokenizer(settings, config["summary_width"], len(config["labels"]), own)
    checkpoint.load_into(model, tensors, path)
    return model.eval(), config["labels"]


def save_retriever(path: Path, model: Query, settings: RetrieverSettings) -> None:
    """Writes decoder and, where it was tuned, reader."""
    config = {"retriever": asdict(settings), "shape": asdict(model.decoder.shape)}
    checkpoint.save(path, model.state_dict(), config)


def load_retriever(path: Path, reader: Reader) -> Query:
    """The trained retriever in eval mode, with ``reader`` as the frozen reader or, if it was tuned,
    as the architecture its weights are loaded into."""
    tensors, config = checkpoint.load(path)
    settings = parse(RetrieverSettings, config["retriever"], where=str(path))
    decoder = Retriever(settings, Shape(**config["shape"]))
    model = Query(deepcopy(reader) if settings.tune_encoder else None, decoder)
    checkpoint.load_into(model, tensors, path)
    model.reader = model.reader or reader
    return model.eval()


def frozen_reader(pretrained: ImageEncoder, tokenizer: Tokenizer, source: str) -> Reader:
    """The reader a retriever starts from: ``source`` = pretrained, or tokenizer (then it shares the
    tokenizer's adapter, and its encoder if that one was tuned)."""
    if source == "tokenizer":
        return Reader(tokenizer.encoder or pretrained, tokenizer.adapter)
    return Reader(pretrained, None)


@dataclass(frozen=True)
class Identified:
    """A role's images: ``ids`` (N,), ``codes`` (N, M) int64, unit ``embeddings`` (N, D) float32."""

    ids: list[str]
    codes: Tensor
    embeddings: Tensor


def save_identified(folder: Path, identified: Identified) -> None:
    """Writes ``codes.parquet`` (id, level_1 … level_M) and ``embeddings.npy``."""
    columns = {
        f"level_{m + 1}": c.numpy() for m, c in enumerate(identified.codes.T.to(torch.int32))
    }
    with atomic(folder / "codes.parquet") as temporary:
        pl.DataFrame({"id": identified.ids, **columns}).write_parquet(temporary)
    write_array(folder / "embeddings.npy", identified.embeddings.numpy())


def load_identified(folder: Path) -> Identified:
    """The inverse of ``save_identified``; embeddings stay memory-mapped until read."""
    table = pl.read_parquet(folder / "codes.parquet")
    embeddings = read_array(folder / "embeddings.npy")
    if len(table) != len(embeddings):
        raise ArtifactError(
            f"{folder}: {len(table)} codes but {len(embeddings)} embeddings; "
            "delete it and run dvc repro"
        )
    codes = table.drop("id").to_numpy().astype(np.int64)
    return Identified(
        table["id"].to_list(), torch.from_numpy(codes), torch.from_numpy(embeddings.copy())
    )


def load_trie(workspace: Workspace) -> trie.Trie:
    """The trie of the database's identifiers."""
    return trie.from_tensors(checkpoint.load(workspace.existing("trie", "trie.safetensors"))[0])
