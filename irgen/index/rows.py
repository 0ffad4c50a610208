"""Images on their way into an index: their ids, hashed to keys, and checks of what belongs to them.

A key is a hash of an id. Ties are broken by key and the base is sorted by key, so that nothing
depends on the order in which images came.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.errors import IndexingError
from irgen.index.metadata import ID, check_columns
from irgen.models import quantizer

BLOCK = 1 << 16  # rows processed at once
TOLERANCE = 0.01  # of the length of a unit vector


@dataclass(frozen=True)
class Rows:
    """Some images: ``table`` with ``id`` and metadata; ``keys`` (n,) int64; ``codes`` (n, M) of
    ``code_type``; ``embeddings`` (n, D) floats; ``trained`` (n,) bool, whether the retriever was
    trained on the image."""

    table: pl.DataFrame
    keys: np.ndarray
    codes: Tensor
    embeddings: Tensor
    trained: Tensor

    def __len__(self) -> int:
        return len(self.keys)


def hash_ids(ids: Iterable[str]) -> np.ndarray:
    """Return the keys (n,) int64 of ids, never negative: the first 63 bits of BLAKE2b.

    >>> hash_ids(["a cat", "a dog"])
    array([6189685321240930555, 2319119973058196390])
    """
    hashes = (hashlib.blake2b(name.encode()).digest()[:8] for name in ids)
    return (np.frombuffer(b"".join(hashes), ">u8") >> np.uint64(1)).astype(np.int64)


def hash_distinct(ids: Sequence[str]) -> np.ndarray:
    """Return ``hash_ids`` of distinct ids. Raise IndexingError if two of them have the same key."""
    keys = hash_ids(ids)
    order = np.argsort(keys, kind="stable")
    equal = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if len(equal):
        raise collision(ids[order[equal[0]]], ids[order[equal[0] + 1]])
    return keys


def collision(first: str, second: str) -> IndexingError:
    """Return the error for two ids with one key: one pair in 10¹⁰ among 30,000 ids."""
    return IndexingError(f"ids {first!r} and {second!r} have the same 63-bit hash: rename one")


def shorten(ids: Sequence[str], shown: int = 3) -> str:
    """Name the first few ids, for a message.

    >>> shorten(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    more = f" and {len(ids) - shown:,} more" if len(ids) > shown else ""
    return ", ".join(map(repr, ids[:shown])) + more


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return ``ids`` as a list. Raise IndexingError unless they are non-empty, distinct strings."""
    if isinstance(ids, str):
        raise IndexingError(f"ids are a list of strings, not the one string {ids!r}")
    names = list(ids)
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise IndexingError(f"id {number} is {name!r}: an id is a string that is not empty")
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        raise IndexingError(f"an id is not valid text: {error}") from None
    if len(set(names)) < len(names):
        column = pl.Series(names)
        repeated = column.filter(column.is_duplicated()).unique(maintain_order=True)
        raise IndexingError(
            f"given twice: {shorten(repeated.to_list())}; an id stands for one image"
        )
    return names


def check_table(table: pl.DataFrame) -> pl.DataFrame:
    """Return the ids and metadata of a new index, id first. Raise IndexingError if there is no id
    column, an id is invalid, or a column has a type that an index cannot store."""
    if ID not in table.columns:
        raise IndexingError(f"the table has no column {ID!r} (it has {', '.join(table.columns)})")
    names = check_ids(table[ID].to_list())
    return check_columns(table).insert_column(0, pl.Series(ID, names, dtype=pl.String))


def check_rows(
    table: pl.DataFrame,
    embeddings: Tensor | np.ndarray,
    codes: Tensor | np.ndarray | None,
    trained: Tensor | np.ndarray,
    codebooks: Tensor,
) -> Rows:
    """Return the images of a ``table`` whose ids and metadata were checked. Without ``codes`` they
    get those of the ``codebooks`` (M, L, D). Raise IndexingError for anything that does not fit the
    table or the codebooks, and for two ids with the same key."""
    ids = table[ID].to_list()
    vectors = check_embeddings(embeddings, ids, codebooks.shape[2])
    if codes is None:
        codes = quantizer.encode(vectors.float(), codebooks)
    return Rows(
        table=table,
        keys=hash_distinct(ids),
        codes=check_codes(codes, len(ids), codebooks),
        embeddings=vectors,
        trained=check_trained(trained, len(ids)),
    )


def check_embeddings(embeddings: Tensor | np.ndarray, ids: Sequence[str], width: int) -> Tensor:
    """Return ``embeddings`` (n, D) as a tensor on the CPU, of any float type. Raise IndexingError
    unless there is one per id, of ``width`` D, finite and of length 1."""
    vectors = torch.as_tensor(embeddings).detach().cpu()
    if vectors.shape != (len(ids), width) or not vectors.is_floating_point():
        raise IndexingError(
            f"embeddings are {_describe(vectors)}: {len(ids):,} ids of this index need floats of "
            f"shape ({len(ids)}, {width})"
        )
    for start in range(0, len(vectors), BLOCK):
        lengths = vectors[start : start + BLOCK].float().square().sum(1).sqrt()  # (block,)
        wrong = torch.nonzero(~((lengths - 1).abs() <= TOLERANCE)).flatten()  # NaN is wrong, too
        if len(wrong):
            names = [ids[start + row] for row in wrong.tolist()]
            raise IndexingError(
                f"the embedding of {shorten(names)} is not finite or not of length 1 (the first "
                f"has length {float(lengths[wrong[0]]):.4g}): normalise embeddings, x / |x|"
            )
    return vectors


def check_codes(codes: Tensor | np.ndarray, count: int, codebooks: Tensor) -> Tensor:
    """Return ``codes`` (n, M) as a tensor of ``code_type``. Raise IndexingError unless there is one
    per image and each number is in the codebooks (M, L, D)."""
    numbers, (levels, size, _) = torch.as_tensor(codes).detach().cpu(), codebooks.shape
    integers = not numbers.is_floating_point() and numbers.dtype != torch.bool
    if numbers.shape != (count, levels) or not integers:
        raise IndexingError(
            f"codes are {_describe(numbers)}: {count:,} images of this index need integers of "
            f"shape ({count}, {levels})"
        )
    if count and not 0 <= int(numbers.min()) <= int(numbers.max()) < size:
        raise IndexingError(
            f"codes from {int(numbers.min())} to {int(numbers.max())}: the codebooks have codes 0 "
            f"to {size - 1}"
        )
    return numbers.to(code_type(size))


def code_type(size: int) -> torch.dtype:
    """Return the narrowest integer type for codes below ``size``.

    >>> code_type(256), code_type(257)
    (torch.uint8, torch.int16)
    """
    return torch.uint8 if size <= 256 else torch.int16 if size <= 32768 else torch.int32


def check_trained(trained: Tensor | np.ndarray, count: int) -> Tensor:
    """Return ``trained`` (n,) as a bool tensor. Raise IndexingError unless it has one per image."""
    flags = torch.as_tensor(trained).detach().cpu()
    if flags.shape != (count,) or flags.dtype != torch.bool:
        raise IndexingError(f"trained is {_describe(flags)}, not bool of shape ({count},)")
    return flags


def _describe(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}"
