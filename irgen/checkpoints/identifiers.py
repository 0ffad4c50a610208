"""Save and load the codes and tuned embeddings of a role's images."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from irgen.errors import ArtifactError, IndexingError
from irgen.files.sealed import read_array, read_parquet, write_blocks, write_parquet

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageCodes:
    """Codes of images: ``ids`` (N,), ``codes`` (N, M) int64, unit ``embeddings`` (N, D) float32."""

    ids: list[str]
    codes: "Tensor"
    embeddings: "Tensor"


def check_served(rule: str) -> None:
    """Raise IndexingError unless codes are the tokenizer's: an index needs it to code images that
    are added. ``rule``: identifiers.rule of params.yaml."""
    if rule != "semantic":
        raise IndexingError(
            f"params.yaml: identifiers: rule: {rule!r} exists for comparison and cannot be served, "
            "since an index codes added images with the tokenizer; run irgen evaluate to measure "
            "this rule, or set identifiers.rule to semantic"
        )


def save_codes(folder: Path, ids: pl.Series, codes: "Tensor") -> None:
    """Write ``codes.parquet``: ``ids`` (N,), and codes (N, M) as level_1 … level_M."""
    columns = {f"level_{m + 1}": c for m, c in enumerate(codes.numpy().T.astype(np.int32))}
    write_parquet(folder / "codes.parquet", pl.DataFrame({"id": ids, **columns}))


def save_embeddings(folder: Path, shape: tuple[int, int], blocks: Iterable[np.ndarray]) -> "Tensor":
    """Write ``embeddings.npy`` of ``shape`` (N, D), whose rows come in ``blocks``; return them,
    mapped to the file."""
    import torch

    write_blocks(folder / "embeddings.npy", shape, np.dtype(np.float32), blocks)
    return torch.from_numpy(read_array(folder / "embeddings.npy"))


def load_codes(folder: Path) -> ImageCodes:
    """Load codes and embeddings as tensors."""
    import torch

    ids, codes, embeddings = read_codes(folder)
    return ImageCodes(ids, torch.from_numpy(codes), torch.from_numpy(embeddings))


def read_codes(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Load ids (N,), codes (N, M) int64 and embeddings (N, D) float32, memory-mapped, as arrays:
    importing torch would take seconds."""
    table = read_parquet(folder / "codes.parquet")
    embeddings = read_array(folder / "embeddings.npy")
    if len(table) != len(embeddings):
        raise ArtifactError(
            f"{folder}: {len(table)} codes but {len(embeddings)} embeddings; "
            "delete it and run dvc repro"
        )
    return table["id"].to_list(), table.drop("id").to_numpy().astype(np.int64), embeddings
