"""Look up rows by content hash in sorted arrays: 40 bytes an image, where a dict takes 200."""

from collections.abc import Sequence

import numpy as np
import polars as pl

KEY = 32  # bytes of a hash
DTYPE = np.dtype(f"S{KEY}")
CHUNK = 65_536  # hashes turned into bytes at once
Hashes = Sequence[str] | pl.Series  # content hashes as text, 64 hexadecimal digits each


class HashRows:
    """Rows 0, 1, 2 … of content hashes, in the order in which they were added; a hash that comes
    again keeps its first row. Threads may look up at once.

    >>> rows = HashRows(pack_hashes(["bb" * 32, "aa" * 32]))
    >>> rows.find(pack_hashes(["aa" * 32, "cc" * 32])).tolist()
    [1, -1]
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._keys, self._rows = np.empty(0, DTYPE), np.empty(0, np.int64)  # sorted by key
        self._added = 0
        self.add(keys)

    def __len__(self) -> int:
        """Return the number of different hashes."""
        return len(self._keys)

    def add(self, keys: np.ndarray) -> None:
        """Add hashes (n,) of DTYPE, in time O(N + n log n)."""
        distinct, rows = np.unique(keys, return_index=True)  # of equal ones the first
        new = self._find(distinct) < 0
        at = np.searchsorted(self._keys, distinct[new])
        self._keys = np.insert(self._keys, at, distinct[new])
        self._rows = np.insert(self._rows, at, rows[new] + self._added)
        self._added += len(keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row (n,) int64 of each of the hashes (n,) of DTYPE, −1 where there is none."""
        rows, order = np.empty(len(keys), np.int64), np.argsort(keys)
        rows[order] = self._find(keys[order])  # in order the cache of the processor helps
        return rows

    def _find(self, keys: np.ndarray) -> np.ndarray:
        if not len(self._keys):
            return np.full(len(keys), -1)
        at = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._rows[at], -1)


def pack_hashes(sha256s: Hashes) -> np.ndarray:
    """Return content hashes (n,) of DTYPE. Raises ValueError if one is none."""
    keys = np.empty(len(sha256s), DTYPE)
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        content = bytes.fromhex("".join(sha256s[start : start + CHUNK]))
        if len(content) != chunk.nbytes:
            raise ValueError(f"content hashes have {2 * KEY} hexadecimal digits each")
        chunk[:] = np.frombuffer(content, DTYPE)
    return keys


def unpack_hashes(keys: np.ndarray) -> list[str]:
    """Return content hashes (n,) of DTYPE as text: undo ``pack_hashes``."""
    text = keys.tobytes().hex()
    return [text[start : start + 2 * KEY] for start in range(0, len(text), 2 * KEY)]
