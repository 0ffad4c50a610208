"""Base of an index: all images at one moment, sorted by key, as files that never change.

The files depend on the images alone: two bases of the same images are equal byte for byte.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from irgen.files.digests import checksums
from irgen.files.sealed import array_header
from irgen.index import damage, metadata
from irgen.index.rows import BLOCK, Rows
from irgen.search import trie
from irgen.search.snapshot import Segment

DESCRIPTION, EMBEDDINGS = "base.json", "embeddings.npy"
FILES = ("trie.safetensors", "codes.npy", EMBEDDINGS, "keys.npy", "trained.npy", "metadata.arrow")


@dataclass(frozen=True)
class Base:
    """An open base: ``segment`` (memory-mapped arrays and the trie), ``table`` (``id`` and metadata
    of each row), ``keys`` (n,) int64 ascending, and size and SHA-256 of its ``files``. ``digest``
    identifies the content."""

    folder: Path
    number: int
    digest: str
    segment: Segment
    table: pl.DataFrame
    keys: np.ndarray
    files: dict[str, dict[str, Any]]

    def check_embeddings(self) -> None:
        """Raise IndexingError if the mapped embeddings are not those that were written."""
        values = self.segment.embeddings.numpy()
        total = hashlib.sha256(array_header(values.shape, values.dtype))
        for start in range(0, len(values), BLOCK):
            total.update(values[start : start + BLOCK].tobytes())
        if total.hexdigest() != self.files[EMBEDDINGS]["sha256"]:
            raise damage.damaged(self.folder / EMBEDDINGS, "its checksum differs")

    def check_embeddings_once(self) -> None:
        """Call ``check_embeddings`` at the first search, to which opening an index leaves it."""
        _ = self._first_check

    @cached_property
    def _first_check(self) -> None:
        self.check_embeddings()

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row (n,) int64 of each key, −1 where there is none."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int64)
        rows = np.searchsorted(self.keys, keys)
        exists = self.keys[np.minimum(rows, len(self.keys) - 1)] == keys
        return np.where(exists, rows, -1)


def write(folder: Path, rows: Rows, embeddings: Callable[[Tensor], Tensor], width: int) -> None:
    """Write a base into the new folder ``folder``.

    ``rows`` may be in any order. ``embeddings`` returns the unit vectors (b, ``width``) of row
    numbers (b,) int64; those in ``rows`` are not used, so that they need not fit in memory.
    """
    order = torch.from_numpy(np.argsort(rows.keys, kind="stable"))
    keys, codes = rows.keys[order.numpy()], rows.codes[order]
    folder.mkdir(parents=True)
    nodes = trie.to_tensors(trie.build(codes, torch.from_numpy(keys)))
    (folder / "trie.safetensors").write_bytes(save(nodes))
    np.save(folder / "codes.npy", codes.numpy())
    np.save(folder / "keys.npy", keys)
    np.save(folder / "trained.npy", rows.trained[order].numpy())
    with (folder / EMBEDDINGS).open("wb") as file:
        file.write(array_header((len(keys), width), np.dtype(np.float16)))
        for numbers in order.split(BLOCK):
            file.write(embeddings(numbers).half().numpy().tobytes())
    metadata.write_arrow(folder / "metadata.arrow", rows.table[order.numpy()])
    description = {
        "rows": len(keys),
        "code": {"levels": codes.shape[1], "dtype": str(codes.numpy().dtype)},
        "width": width,
        "files": checksums(folder),
    }
    damage.write_sealed(folder / DESCRIPTION, description)


def read(folder: Path, number: int) -> Base:
    """Open the base in ``folder``. Check the size of all files, and the content of all but the
    embeddings. Raise IndexingError, naming the file, for one that is missing or damaged."""
    description = damage.read_sealed(folder / DESCRIPTION)
    files, count, code = description["files"], description["rows"], description["code"]
    for name in FILES:
        check = damage.check_size if name == EMBEDDINGS else damage.check
        check(folder / name, files[name])
    try:
        codes = _map(folder / "codes.npy", code["dtype"], (count, code["levels"]))
        keys = _map(folder / "keys.npy", "int64", (count,))
        trained = _map(folder / "trained.npy", "bool", (count,))
        embeddings = _map(folder / EMBEDDINGS, "float16", (count, description["width"]))
        nodes = trie.from_tensors(load_file(folder / "trie.safetensors"))
        table = pl.read_ipc(folder / "metadata.arrow")
    except (SafetensorError, OSError, KeyError, pl.exceptions.PolarsError) as error:
        raise damage.damaged(folder, error) from None
    segment = Segment(nodes, *map(torch.from_numpy, (codes, embeddings, keys, trained)))
    return Base(folder, number, description["digest"], segment, table, keys, files)


def _map(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Map a .npy file into memory, copy-on-write. Raise IndexingError if its header differs."""
    header = array_header(shape, np.dtype(dtype))
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise damage.damaged(path, f"it does not begin as an array of {dtype} {shape}")
    return np.asarray(np.memmap(path, dtype, "c", len(header), shape))


def verify(folder: Path) -> None:
    """Read every file of a base. Raise IndexingError for one that is missing or damaged."""
    for name, expected in damage.read_sealed(folder / DESCRIPTION)["files"].items():
        damage.check(folder / name, expected)
