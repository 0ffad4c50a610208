"""Check results of computations: numbers are finite, and vectors differ."""

import torch

from irgen.errors import NumberError

MANY = 10  # different images that an encoder never gives one and the same vector


def check_finite(values: torch.Tensor, what: str, remedy: str) -> None:
    """Raise NumberError, naming ``what`` these values are, if one of them is NaN or infinite."""
    if values.is_floating_point() and not bool(values.isfinite().all()):
        wrong = int((~values.isfinite()).sum())
        raise NumberError(
            f"{what}: {wrong:,} of {values.numel():,} numbers are not finite; {remedy}"
        )


class Spread:
    """Tell whether vectors that come block by block are all zero, or all the same."""

    def __init__(self) -> None:
        self._count, self._all_zero, self._all_same = 0, True, True
        self._first = torch.empty(0)

    def add(self, vectors: torch.Tensor) -> None:
        """Look at vectors (n, D)."""
        if not self._count:
            self._first = vectors[:1].clone()
        self._count += len(vectors)
        self._all_zero = self._all_zero and not bool(vectors.any())
        self._all_same = self._all_same and bool((vectors == self._first).all())

    def check(self, what: str, remedy: str) -> None:
        """Raise NumberError, naming ``what`` these vectors are, if there are MANY or more and all
        are the same, or if all are zero: then no search can tell images apart."""
        if self._count and self._all_zero:
            raise NumberError(f"{what}: all of {self._count:,} vectors are zero; {remedy}")
        if self._count >= MANY and self._all_same:
            raise NumberError(f"{what}: all of {self._count:,} vectors are the same; {remedy}")
