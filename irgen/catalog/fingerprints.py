"""Fingerprints of pictures, by which near copies are found without comparing all with all.

A difference hash (Krawetz, "Kind of Like That", hackerfactor.com 2013): is a cell of a coarse grey
picture darker than the one beside it? Here both to its right and below it, 128 bits. What is saved
again, resized or made a little brighter differs in few of them.
"""

import numpy as np
from PIL import Image

VERSION = 1  # raise when the result changes
SIDE = 8
BANDS = 8  # of 16 bits: pictures that differ in fewer bits than that agree in one band at least
MOST = BANDS - 1  # bits
CROWD = 10_000
BLOCK = 1 << 22  # pairs looked at at once
THUMBNAIL = 16  # pixels a side
ALIKE = 0.98  # correlation of two thumbnails


def fingerprint(image: Image.Image) -> tuple[int, int]:
    """The two halves, across and down, of a picture's fingerprint; (0, 0) of one without contrast.

    >>> fingerprint(Image.new("RGB", (20, 10), "red"))
    (0, 0)
    """
    grey = image.convert("L")
    across = _pixels(grey, (SIDE + 1, SIDE))
    down = _pixels(grey, (SIDE, SIDE + 1))
    bits = (across[:, 1:] < across[:, :-1], down[1:] < down[:-1])
    halves = [int(np.packbits(half).view(">u8")[0]) for half in bits]
    return halves[0], halves[1]


def thumbnail(image: Image.Image) -> np.ndarray:
    """A coarse grey picture as a vector (256,) float32 of mean 0 and length 1, 0 if it has no
    contrast: the product of two is their correlation."""
    pixels = _pixels(image.convert("L"), (THUMBNAIL, THUMBNAIL)).reshape(-1).astype(np.float32)
    pixels -= pixels.mean()
    return pixels / max(float(np.linalg.norm(pixels)), 1e-6)


def _pixels(grey: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(grey.resize(size, Image.Resampling.BOX))


def find_near(asked: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Every pair of fingerprints that differ in at most MOST of 128 bits: rows (n, 3) int64 of a
    row of ``asked``, a row of ``others`` and the bits, sorted. Pictures without contrast have none.

    asked (Q, 2) and others (N, 2) uint64. Two that differ in MOST bits agree in one of BANDS bands,
    and only those that do are compared; not in a band that more than CROWD of the others have
    alike, as the blank margins of photos on white: what agrees there alone is missed.
    """
    there = np.flatnonzero(others.any(axis=1))
    pairs = [np.empty((0, 3), np.int64)]
    if not len(asked):
        return pairs[0]
    bands = [
        np.ascontiguousarray(each).view(np.uint16).reshape(-1, BANDS) for each in (asked, others)
    ]
    for band in range(BANDS):
        order = there[np.argsort(bands[1][there, band], kind="stable")]
        values = bands[1][order, band]
        turn = np.argsort(bands[0][:, band], kind="stable")
        wanted, starts = np.unique(bands[0][turn, band], return_index=True)
        left = np.searchsorted(values, wanted, "left")
        right = np.searchsorted(values, wanted, "right")
        groups = np.split(turn, starts[1:])
        for rows, first, last in zip(groups, left, right, strict=True):
            if 0 < last - first <= CROWD:
                pairs += _close(asked, others, rows, order[first:last])
    return np.unique(np.concatenate(pairs), axis=0)


def _close(
    asked: np.ndarray, others: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> list[np.ndarray]:
    found = []
    step = max(1, BLOCK // len(columns))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        differ = asked[some, None] ^ others[None, columns]  # (q, n, 2)
        bits = np.bitwise_count(differ).sum(axis=2, dtype=np.int64)
        a, b = np.nonzero((bits <= MOST) & asked[some].any(axis=1)[:, None])
        found.append(np.stack([some[a], columns[b], bits[a, b]], axis=1))
    return found
