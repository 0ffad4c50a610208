"""What a record of the log says, as bytes: images that come (in place of those of their ids), or
ids that go."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from irgen.index.rows import Rows

PUT, REMOVE = b"P", b"R"


@dataclass(frozen=True)
class Removal:
    """Images that go: their ids, and the ids' keys (n,) int64."""

    ids: list[str]
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


def encode(record: Rows | Removal) -> bytes:
    """An operation, and an Arrow IPC stream of what it is about."""
    if isinstance(record, Removal):
        return REMOVE + _stream(pl.DataFrame({"id": record.ids, "key": record.keys}))
    columns: dict[str, Any] = {
        "key": record.keys,
        "code": record.codes.numpy(),
        "embedding": record.embeddings.numpy().view(np.uint16),  # float16, bit by bit
        "trained": record.trained.numpy(),
        "items": record.items.to_struct(),
    }
    return PUT + _stream(pl.DataFrame([pl.Series(name, c) for name, c in columns.items()]))


def decode(payload: bytes) -> Rows | Removal:
    """The inverse of ``encode``."""
    frame = pl.read_ipc_stream(io.BytesIO(payload[1:]))
    if payload[:1] == REMOVE:
        return Removal(frame["id"].to_list(), frame["key"].to_numpy(writable=True))
    assert payload[:1] == PUT, "no operation of this version"
    return Rows(
        items=frame["items"].struct.unnest(),
        keys=frame["key"].to_numpy(writable=True),
        codes=torch.from_numpy(frame["code"].to_numpy(writable=True)),
        embeddings=torch.from_numpy(frame["embedding"].to_numpy(writable=True).view(np.float16)),
        trained=torch.from_numpy(frame["trained"].to_numpy(writable=True)),
    )


def _stream(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_ipc_stream(file)
    return file.getvalue()
