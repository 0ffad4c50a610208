"""Store arrays by content hash, so that no image is encoded twice in its life."""

import json
import math
import os
import struct
import tempfile
import uuid
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file

from irgen.compute.batches import row_blocks
from irgen.errors import ArtifactError, IrgenWarning
from irgen.files.hash_rows import DTYPE, KEY, Hashes, HashRows, pack_hashes
from irgen.files.records import DIGEST
from irgen.files.sealed import UNSEALED, check_seal, write_safetensors

LARGE = 1 << 30  # bytes; an array of more is kept in a file, so that memory can be taken back
DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "U8": np.uint8, "I32": np.int32}

ROWS = 16_384  # of a block: whole batches of a tokenizer's adapter


class Shard(NamedTuple):
    """One file of the store, mapped into memory; reading a row touches that row alone."""

    keys: np.ndarray  # (n, 32) uint8
    values: np.ndarray  # (n, …)


class ArrayStore:
    """One array of one shape and dtype for each content hash, in append-only safetensors shards.

    Several processes may read and add at once: a shard appears whole, under a name of its own. A
    damaged one is skipped with a warning, as its arrays can be made again. Memory: 40 bytes an
    array.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards: list[Shard] = []
        self._ends: list[int] = []  # of the shards' rows, counted through all shards
        self._seen: set[str] = set()
        self._rows = HashRows(pack_hashes([]))

    def missing(self, sha256s: Hashes) -> list[int]:
        """Return the rows of ``sha256s`` that are not stored, each hash once."""
        self._refresh()
        keys, first = np.unique(pack_hashes(sha256s), return_index=True)
        return np.sort(first[self._rows.find(keys) < 0]).tolist()

    def add(self, sha256s: Hashes, values: np.ndarray) -> None:
        """Append ``values`` (n, …), row-aligned with ``sha256s``, as one shard, whole or not at
        all.

        Hashes that are there already keep their arrays. Raises ArtifactError for another shape
        or dtype than the store holds.
        """
        assert len(sha256s) == len(values), "a value for each hash"
        assert values.dtype in DTYPES.values(), f"no dtype of the store: {values.dtype}"
        rows = self.missing(sha256s)
        if not rows:
            return
        self._check(values.dtype, values.shape[1:])
        content = {
            "keys": pack_hashes(sha256s)[rows].view(np.uint8).reshape(len(rows), KEY),
            "values": np.ascontiguousarray(values if len(rows) == len(values) else values[rows]),
        }
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        write_safetensors(path, lambda new: save_file(content, new, metadata={DIGEST: UNSEALED}))
        self._refresh()

    def get(self, sha256s: Hashes) -> np.ndarray:
        """Return (N, …), row-aligned with ``sha256s``, which may repeat. For no hash, an empty
        store returns (0,) float32. An array of more than LARGE bytes is mapped to a file in the
        store's folder that has no name, and goes with the array. Raises ArtifactError if an array
        is missing, OSError if there is no room for that file."""
        self._refresh()
        stored = self._rows.find(pack_hashes(sha256s))
        absent = np.flatnonzero(stored < 0)
        if len(absent):
            raise ArtifactError(
                f"{self.folder} has no array for image {sha256s[int(absent[0])]} "
                f"({len(absent):,} missing): run the stage again to make it"
            )
        if not self._shards:
            return np.empty(0, np.float32)
        like = self._shards[0].values
        result = self._allocate((len(sha256s), *like.shape[1:]), like.dtype)
        order = np.argsort(stored)
        parts = np.split(order, np.searchsorted(stored[order], self._ends[:-1]))
        for shard, end, rows in zip(self._shards, self._ends, parts, strict=True):
            result[rows] = shard.values[stored[rows] - end + len(shard.values)]
        return result

    def blocks(self, sha256s: Hashes) -> Iterator[np.ndarray]:
        """Yield what ``get`` returns in blocks of ROWS rows; only one is in memory."""
        for rows in row_blocks(len(sha256s), ROWS):
            yield self.get(sha256s[rows])

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        if size <= LARGE:
            return np.empty(shape, dtype)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process later
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "w+", shape=shape)

    def _check(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        like = self._shards[0].values if self._shards else None
        if like is not None and (like.dtype != dtype or like.shape[1:] != shape):
            raise ArtifactError(
                f"{self.folder} holds {like.dtype} {like.shape[1:]}, not {dtype} {shape}: "
                "delete it and run again"
            )

    def _refresh(self) -> None:
        """Map the shards that have appeared since the last look, in order of name."""
        new = []
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._seen:
                continue
            self._seen.add(path.name)
            try:
                shard = map_shard(path)
                self._check(shard.values.dtype, shard.values.shape[1:])
            except (ValueError, KeyError, TypeError, OSError, ArtifactError) as error:
                warnings.warn(f"{path} is skipped, delete it: {error}", IrgenWarning, stacklevel=3)
                continue
            self._shards.append(shard)
            self._ends.append(len(shard.values) + (self._ends[-1] if self._ends else 0))
            new.append(shard.keys.view(DTYPE)[:, 0])
        if new:
            self._rows.add(np.concatenate(new))


def forget_arrays(folder: Path, sha256s: Collection[str]) -> int:
    """Delete the shards below ``folder`` that hold an array of one of these hashes, and damaged
    ones; return how many. The other arrays in them are made again when they are needed."""
    hashes, count = {bytes.fromhex(sha256) for sha256 in sha256s}, 0
    for path in folder.rglob("*.safetensors"):
        try:
            keys = map_shard(path).keys.tobytes()
        except (ArtifactError, ValueError, KeyError, TypeError, OSError):
            keys = b"".join(hashes)
        if not hashes.isdisjoint(keys[row : row + KEY] for row in range(0, len(keys), KEY)):
            path.unlink()
            count += 1
    return count


def map_shard(path: Path) -> Shard:
    """Map a safetensors file of ``keys`` and ``values``. Raises ArtifactError, ValueError, KeyError
    or OSError if it is not as it was written."""
    check_seal(path)
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) != 8:
            raise ValueError("it is truncated")
        (length,) = struct.unpack("<Q", start)
        if 8 + length > path.stat().st_size:
            raise ValueError("it is truncated")
        header = json.loads(file.read(length))
    end = max(header[name]["data_offsets"][1] for name in Shard._fields)
    if path.stat().st_size != 8 + length + end:
        raise ValueError("it is truncated")
    shard = Shard(*(_map(path, header[name], 8 + length) for name in Shard._fields))
    if shard.keys.ndim != 2 or shard.keys.shape[1] != KEY or len(shard.keys) != len(shard.values):
        raise ValueError("keys and values do not fit each other")
    return shard


def _map(path: Path, header: dict, start: int) -> np.ndarray:
    shape, dtype = tuple(header["shape"]), DTYPES[header["dtype"]]
    return np.memmap(path, dtype, "r", start + header["data_offsets"][0], shape)
