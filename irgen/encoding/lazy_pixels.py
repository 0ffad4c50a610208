"""Decode the images of a training when they are needed, instead of holding all of them."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from torch import Tensor

from irgen.catalog.images.pixels import Decoding, count_cores, decode_square
from irgen.catalog.shards import Images

AHEAD = 4  # batches that are decoded while another one is used


class LazyPixels:
    """Decoded images (N, C, H, H) uint8: ``pixels[rows]`` (B,) is (B, C, H, H), as of an array.

    The images that were decoded first stay in memory, in up to ``memory`` bytes. ``threads`` (0:
    one a core) decode the others each time. Raises ImageError naming the image that does not
    decode.
    """

    def __init__(
        self,
        images: Images,
        sha256s: Sequence[str],
        decoding: Decoding,
        *,
        threads: int,
        memory: int,
    ) -> None:
        self._images, self._sha256s, self._decoding = images, sha256s, decoding
        self._pool = ThreadPoolExecutor(threads or count_cores(), thread_name_prefix="decode")
        capacity = min(len(sha256s), memory // math.prod(decoding.shape))
        self._kept = np.empty((capacity, *decoding.shape), np.uint8)  # pages are taken when used
        self._kept_count = 0
        self._slots = np.full(len(sha256s), -1)  # of images in ``_kept``
        self._decoded: dict[int, Future[np.ndarray]] = {}  # of upcoming batches, by row

    def __len__(self) -> int:
        return len(self._sha256s)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        absent = np.unique(rows[self._slots[rows] < 0])
        self._request(absent)
        fresh = {row: self._decoded.pop(row).result() for row in absent.tolist()}
        self._keep(fresh)
        slots = self._slots[rows]
        if (slots >= 0).all():
            return self._kept[slots]
        pairs = zip(rows.tolist(), slots.tolist(), strict=True)
        return np.stack([self._kept[slot] if slot >= 0 else fresh[row] for row, slot in pairs])

    def prefetch(
        self, batches: Iterable[Tensor], own: Tensor | slice = slice(None)
    ) -> Iterator[Tensor]:
        """Yield the rows (B,) of ``batches``, and decode those at the positions ``own`` of the next
        AHEAD meanwhile."""
        source, upcoming = iter(batches), deque[Tensor]()
        try:
            while True:
                for rows in islice(source, 1 + AHEAD - len(upcoming)):
                    self._request(rows[own].numpy())
                    upcoming.append(rows)
                if not upcoming:
                    return
                yield upcoming.popleft()
        finally:
            for future in self._decoded.values():
                future.cancel()
            self._decoded.clear()

    def _request(self, rows: np.ndarray) -> None:
        """Have the images ``rows`` decoded that are neither kept nor requested."""
        for row in rows[self._slots[rows] < 0].tolist():
            if row not in self._decoded:
                sha256 = self._sha256s[row]
                self._decoded[row] = self._pool.submit(
                    decode_square, self._images, sha256, self._decoding
                )

    def _keep(self, fresh: Mapping[int, np.ndarray]) -> None:
        """Keep images by row as long as there is room."""
        room = len(self._kept) - self._kept_count
        for row, image in islice(fresh.items(), room):
            self._kept[self._kept_count] = image
            self._slots[row] = self._kept_count
            self._kept_count += 1
