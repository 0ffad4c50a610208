import pytest
import torch

from irgen.compute.checks import Spread, check_finite
from irgen.errors import NumberError


def check_spread(vectors: torch.Tensor) -> None:
    spread = Spread()
    spread.add(vectors)
    spread.check("features", "do this")


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_none_are_counted_and_named(number):
    check_finite(torch.arange(3), "codes", "nothing")  # integers are always finite
    check_finite(torch.zeros(0, 3), "features", "nothing")
    with pytest.raises(NumberError, match="features: 2 of 6 numbers are not finite; do this"):
        check_finite(torch.tensor([[1, number, 2], [0, number, 0]]), "features", "do this")


def test_vectors_that_tell_no_images_apart_are_named():
    check_spread(torch.zeros(0, 3))
    check_spread(torch.ones(3, 2))  # maybe copies
    check_spread(torch.eye(12))
    for vectors, problem in ((torch.zeros(3, 2), "are zero"), (torch.ones(12, 2), "are the same")):
        with pytest.raises(NumberError, match=f"features: all of .* {problem}; do this"):
            check_spread(vectors)


@pytest.mark.parametrize("vectors", [torch.zeros(12, 2), torch.ones(12, 2), torch.eye(12)])
@pytest.mark.parametrize("size", [1, 5, 12])
def test_vectors_in_blocks_are_checked_as_the_whole_is(vectors: torch.Tensor, size: int) -> None:
    spread, messages = Spread(), []
    spread.add(torch.empty(0, vectors.shape[1]))
    for block in vectors.split(size):
        spread.add(block)
    checks = (lambda: spread.check("features", "do this"), lambda: check_spread(vectors))
    for check in checks:
        try:
            check()
            messages.append("fine")
        except NumberError as error:
            messages.append(str(error))
    assert len(set(messages)) == 1
