"""Made-up codes and models, for sizes at which the stages that make them would take hours.

Embeddings are clustered unit vectors, in half precision to spare the disk, and codes are their
residual codes (``speed/synthetic.py``, which compares their spread with that of real ones). Models
are untrained. There are no validation images, so the index is not calibrated. 10 million images
take 12 GB of disk with their index.
"""

from dataclasses import replace

import numpy as np
import polars as pl
import torch
from speed import synthetic

from irgen.catalog.table import SCHEMA, write_table
from irgen.checkpoints.history import write_history
from irgen.checkpoints.retriever import initial_query_encoder, save_retriever
from irgen.checkpoints.text import TEXT_ENCODER, save_text_encoder
from irgen.checkpoints.tokenizer import load_tokenizer, save_tokenizer
from irgen.checkpoints.weights import create_encoder
from irgen.files.sealed import write_parquet
from irgen.files.workspace import Workspace
from irgen.models import quantizer
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import Retriever
from irgen.models.tokenizer import Tokenizer
from irgen.params import Params

RECIPE = synthetic.Recipe()
LABEL_SIZE = 100  # images of a label


def count_labels(rows: int) -> int:
    """Return the number of labels of so many images."""
    return max(1, rows // LABEL_SIZE)


def save_codebooks(
    params: Params, workspace: Workspace, rows: int, codebooks: torch.Tensor
) -> None:
    """Write ``data/tokenizer``: ``codebooks`` (M, L, D) and an untrained adapter; and
    ``data/texts`` of a catalogue without texts."""
    labels = [f"label-{label:06d}" for label in range(count_labels(rows))]
    model = Tokenizer(params.tokenizer, RECIPE.width, len(labels), None)
    model.codebooks.copy_(codebooks)
    folder = workspace.stage("tokenizer")
    save_tokenizer(
        folder / "tokenizer.safetensors", model, params.encoder, params.tokenizer, labels
    )
    write_history(folder / "history.csv", [{"step": 1, "loss": 0.0}])
    save_text_encoder(workspace.stage("texts") / TEXT_ENCODER, None)


def prepare_codes(params: Params, workspace: Workspace, rows: int) -> None:
    """Write a database of ``rows`` images with their codes, and a tokenizer."""
    folder = workspace.stage("identifiers") / "database"
    recipe = replace(RECIPE, levels=params.tokenizer.levels, codebook=params.tokenizer.codebook)
    sample = synthetic.draw_new_images(recipe, synthetic.CHUNK)
    shape = (recipe.levels, recipe.codebook)
    codebooks, _ = quantizer.fit(sample, None, shape, recipe.iterations, params.seed)
    save_codebooks(params, workspace, rows, codebooks)
    folder.mkdir(parents=True)
    embeddings = np.lib.format.open_memmap(
        folder / "embeddings.npy", "w+", np.float16, (rows, recipe.width)
    )
    codes, start = np.empty((rows, recipe.levels), np.int32), 0
    for vectors in synthetic.draw_chunks(recipe, rows):
        part = slice(start, start + len(vectors))
        embeddings[part], start = vectors.numpy(), part.stop
        codes[part] = quantizer.encode(vectors, codebooks).numpy()
    embeddings.flush()
    table = list_images(rows)
    columns = {f"level_{m + 1}": column for m, column in enumerate(codes.T)}
    write_parquet(folder / "codes.parquet", table.select("id").with_columns(**columns))
    for role in ("train", "validation", "queries"):
        write_table(workspace.stage("catalog") / f"{role}.parquet", table.clear())
    write_table(workspace.stage("catalog") / "database.parquet", table)


def list_images(rows: int) -> pl.DataFrame:
    """Return a table of the catalogue whose images have made-up names, labels and hashes."""
    number = pl.int_range(rows, dtype=pl.Int64)
    columns = {
        "id": pl.lit("image-") + number.cast(pl.String).str.zfill(9) + ".png",
        "label": pl.lit("label-") + (number % count_labels(rows)).cast(pl.String).str.zfill(6),
        "role": pl.lit("train"),
        "sha256": number.cast(pl.String).str.zfill(64),
        "width": pl.lit(16),
        "height": pl.lit(16),
    }
    table = pl.select(number).with_columns(**columns).with_columns(path="id")
    return table.select(*SCHEMA).cast(dict(SCHEMA))


def prepare_retriever(params: Params, workspace: Workspace, rows: int) -> None:
    """Write an untrained retriever, unless the stage has run."""
    path = workspace.stage("retriever") / "retriever.safetensors"
    if path.exists():
        return
    torch.manual_seed(params.seed)
    encoder = create_encoder(params.encoder, params.seed)
    tokenizer, _ = load_tokenizer(workspace.existing("tokenizer", "tokenizer.safetensors"))
    shape = Shape(
        summary_width=params.tokenizer.width,
        token_width=encoder.token_width,
        token_count=encoder.token_count,
        levels=params.tokenizer.levels,
        codebook=params.tokenizer.codebook,
    )
    query_encoder = initial_query_encoder(encoder, tokenizer, params.retriever.encoder)
    model = Retriever(query_encoder, IdentifierDecoder(params.retriever, shape))
    save_retriever(path, model, params.retriever)
