"""A generation: all that an index held at one moment, in order of key, as files that never change.

What is written depends on what is held alone: two generations of the same images are the same byte
for byte.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from irgen.files import digest
from irgen.index import disk, metadata
from irgen.index.rows import BLOCK, Rows
from irgen.search import trie
from irgen.search.snapshot import Segment

ABOUT = "generation.json"
EMBEDDINGS = "embeddings.npy"
FILES = ("trie.safetensors", "codes.npy", EMBEDDINGS, "keys.npy", "trained.npy", "items.arrow")


@dataclass(frozen=True)
class Generation:
    """A generation as read: its number, its rows (arrays memory-mapped), ids and metadata of the
    rows, their ``keys`` (n,) int64 ascending, and size and SHA-256 of each file. ``owner``: 16
    bytes that tell it from every other one."""

    number: int
    owner: bytes
    segment: Segment
    items: pl.DataFrame
    keys: np.ndarray
    files: dict[str, dict[str, Any]]

    def check_embeddings(self, folder: Path) -> None:
        """Raises IndexingError if the embeddings, as mapped, are not those that were written;
        ``folder`` is named."""
        values = self.segment.embeddings.numpy()
        if disk.bytes_digest(array_bytes(values)) != self.files[EMBEDDINGS]["sha256"]:
            raise disk.damaged(folder / EMBEDDINGS, "its checksum is another one")


def write(folder: Path, rows: Rows, embeddings: Callable[[Tensor], Tensor], width: int) -> None:
    """Writes a generation into the new folder ``folder``.

    ``rows`` are in any order; their embeddings may be left empty, since ``embeddings`` gives them
    for places (b,) int64 in ``rows`` as (b, ``width``) floats, unit vectors.
    """
    order = np.argsort(rows.keys, kind="stable")
    places = torch.from_numpy(order)
    keys, codes, trained = rows.keys[order], rows.codes[places], rows.trained[places]
    folder.mkdir(parents=True)
    built = trie.to_tensors(trie.build(codes, torch.from_numpy(keys)))
    disk.write(folder / "trie.safetensors", [save(built)])
    disk.write(folder / "codes.npy", array_bytes(codes.numpy()))
    disk.write(folder / "keys.npy", array_bytes(keys))
    disk.write(folder / "trained.npy", array_bytes(trained.numpy()))
    halves = (embeddings(part).half().numpy() for part in places.split(BLOCK))
    header = _header(np.dtype(np.float16), (len(keys), width))
    disk.write(folder / EMBEDDINGS, chain([header], halves))
    disk.write(folder / "items.arrow", [metadata.to_bytes(rows.items[order])])
    about = {
        "rows": len(keys),
        "code": {"levels": codes.shape[1], "dtype": str(codes.numpy().dtype)},
        "width": width,
        "files": disk.sums(folder),
    }
    disk.write_sealed(folder / ABOUT, about)


def array_bytes(values: np.ndarray) -> Iterator[Any]:
    """The bytes of a .npy file, part by part."""
    yield _header(values.dtype, values.shape)
    for start in range(0, len(values), BLOCK):
        yield np.ascontiguousarray(values[start : start + BLOCK])


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The beginning of a .npy file."""
    file = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()


def read(folder: Path, number: int) -> Generation:
    """The generation in ``folder``. Sizes of all files are checked, and the content of all but the
    embeddings. Raises IndexingError, naming the file, for one that is missing or damaged."""
    about = read_about(folder)
    files, rows = about["files"], about["rows"]
    for name in FILES:
        (disk.check_size if name == EMBEDDINGS else disk.check)(folder / name, files[name])
    try:
        codes = _map(folder / "codes.npy", about["code"]["dtype"], (rows, about["code"]["levels"]))
        keys = _map(folder / "keys.npy", "int64", (rows,))
        trained = _map(folder / "trained.npy", "bool", (rows,))
        embeddings = _map(folder / EMBEDDINGS, "float16", (rows, about["width"]))
        built = trie.from_tensors(load_file(folder / "trie.safetensors"))
        items = pl.read_ipc(folder / "items.arrow")
    except (SafetensorError, OSError, KeyError, pl.exceptions.PolarsError) as error:
        raise disk.damaged(folder, error) from None
    tensors = map(torch.from_numpy, (codes, embeddings, keys, trained))
    return Generation(number, owner(about, number), Segment(built, *tensors), items, keys, files)


def read_about(folder: Path) -> dict[str, Any]:
    """What ``generation.json`` says. Raises IndexingError if it is missing or damaged."""
    about = disk.read_sealed(folder / ABOUT)
    disk.check_seal(folder / ABOUT, about)
    return about


def owner(about: dict[str, Any], number: int) -> bytes:
    """What the log of generation ``number``, described by ``about``, calls it."""
    return bytes.fromhex(digest(number, about["digest"]))[:16]


def verify(folder: Path) -> None:
    """Reads every file again, the embeddings too. Raises IndexingError for the first one that is
    missing or damaged."""
    for name, expected in read_about(folder)["files"].items():
        disk.check(folder / name, expected)


def _map(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """A .npy file in memory, page by page as it is touched; writing to it changes no file."""
    header = _header(np.dtype(dtype), shape)
    with path.open("rb") as file:
        found = file.read(len(header))
    if found != header:
        raise disk.damaged(path, f"it does not begin as one of {dtype} {shape}")
    return np.asarray(np.memmap(path, dtype, "c", len(header), shape))
