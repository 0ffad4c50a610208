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


def check_spread(vectors: torch.Tensor, what: str, remedy: str) -> None:
    """Raise NumberError, naming ``what`` these vectors (N, D) are, if there are MANY or more and
    all are the same, or if all are zero: then no search can tell images apart."""
    if len(vectors) and not bool(vectors.any()):
        raise NumberError(f"{what}: all of {len(vectors):,} vectors are zero; {remedy}")
    if len(vectors) >= MANY and bool((vectors == vectors[0]).all()):
        raise NumberError(f"{what}: all of {len(vectors):,} vectors are the same; {remedy}")
