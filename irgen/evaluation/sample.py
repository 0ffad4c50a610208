"""Draw a sample of images to measure on, where measuring on all would take too long."""

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl


def draw_sample(table: pl.DataFrame, most: int) -> npt.NDArray[np.int64]:
    """Return the rows (n,), ascending, of at most ``most`` of the images of ``table`` (``id`` …):
    all of them, or those with the lowest hashes of their ids.

    The sample depends on the ids alone, so trainings with other seeds are measured on the same
    images. When few images come or go, few of the sample do.

    >>> draw_sample(pl.DataFrame({"id": list("abcdef")}), 3).tolist()
    [0, 1, 5]
    >>> draw_sample(pl.DataFrame({"id": list("acdef")}), 3).tolist()  # b is gone
    [0, 2, 4]
    """
    if len(table) <= most:
        return np.arange(len(table))
    digests = (hashlib.sha256(f"sample:{name}".encode()).digest()[:8] for name in table["id"])
    hashes = np.frombuffer(b"".join(digests), np.uint64)
    return np.sort(np.argsort(hashes, kind="stable")[:most])
