"""Fingerprints of pictures: find near copies without comparing all with all.

A difference hash (Krawetz, "Kind of Like That", hackerfactor.com 2013): is a cell of a coarse grey
picture darker than the cell beside it? Here both to its right and below it: 128 bits. A picture
that was saved again, resized or made a little brighter differs in few of them.
"""

import numpy as np
from PIL import Image

VERSION = 1  # raise when a picture gets another fingerprint
SIDE = 8
BANDS = 8  # of 16 bits: fingerprints that differ in fewer bits than BANDS agree in one band
MAX_BITS = BANDS - 1
CROWD = 10_000  # fingerprints that agree in a band and are not compared there
BLOCK = 1 << 22  # pairs compared at once
THUMBNAIL = 16  # pixels a side
ALIKE = 0.98  # correlation of two thumbnails


def fingerprint(image: Image.Image) -> tuple[int, int]:
    """Return the two halves, across and down, of a picture's fingerprint; (0, 0) without contrast.

    >>> fingerprint(Image.new("RGB", (20, 10), "red"))
    (0, 0)
    """
    grey = image.convert("L")
    across = _shrink(grey, (SIDE + 1, SIDE))
    down = _shrink(grey, (SIDE, SIDE + 1))
    bits = (across[:, 1:] < across[:, :-1], down[1:] < down[:-1])
    halves = [int(np.packbits(half).view(">u8")[0]) for half in bits]
    return halves[0], halves[1]


def thumbnail(image: Image.Image) -> np.ndarray:
    """Return a coarse grey picture (256,) float32 of mean 0 and length 1, or 0 without contrast.

    The product of two is their correlation.
    """
    pixels = _shrink(image.convert("L"), (THUMBNAIL, THUMBNAIL)).reshape(-1).astype(np.float32)
    pixels -= pixels.mean()
    return pixels / max(float(np.linalg.norm(pixels)), 1e-6)


def _shrink(grey: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(grey.resize(size, Image.Resampling.BOX))


def find_near(queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return every pair of fingerprints that differ in at most MAX_BITS of 128 bits: (n, 3) int64,
    a row of `queries`, a row of `others` and the bits, sorted.

    queries (Q, 2) and others (N, 2) uint64. Pictures without contrast have no pair. Only pairs that
    agree in one of BANDS bands are compared, and not in a band that more than CROWD of the others
    share, such as the blank margins of photos on white: a pair that agrees there alone is missed.
    """
    pairs = [np.empty((0, 3), np.int64)]
    if not len(queries):
        return pairs[0]
    query_bands, other_bands = (
        np.ascontiguousarray(prints).view(np.uint16).reshape(-1, BANDS)
        for prints in (queries, others)
    )
    contrasting = np.flatnonzero(others.any(axis=1))
    for band in range(BANDS):
        order = contrasting[np.argsort(other_bands[contrasting, band], kind="stable")]
        values = other_bands[order, band]
        query_order = np.argsort(query_bands[:, band], kind="stable")
        bands, starts = np.unique(query_bands[query_order, band], return_index=True)
        firsts = np.searchsorted(values, bands, "left")
        lasts = np.searchsorted(values, bands, "right")
        groups = np.split(query_order, starts[1:])
        for rows, first, last in zip(groups, firsts, lasts, strict=True):
            if 0 < last - first <= CROWD:
                pairs += _compare(queries, others, rows, order[first:last])
    return np.unique(np.concatenate(pairs), axis=0)


def _compare(
    queries: np.ndarray, others: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> list[np.ndarray]:
    pairs = []
    step = max(1, BLOCK // len(columns))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        differences = queries[block, None] ^ others[None, columns]  # (q, n, 2)
        bits = np.bitwise_count(differences).sum(axis=2, dtype=np.int64)
        i, j = np.nonzero((bits <= MAX_BITS) & queries[block].any(axis=1)[:, None])
        pairs.append(np.stack([block[i], columns[j], bits[i, j]], axis=1))
    return pairs
