"""Linear maps made ready for search: near the exact one, whatever the CPU can do."""

import pytest
import torch
from torch.nn import functional as F

from irgen.search.linear import PRECISIONS, linear

ALLOWED = {"fp32": 1e-5, "bf16": 0.05, "int8": 0.1}  # values are of the order of 1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("gelu", [False, True])
def test_every_precision_is_near_the_exact_map(precision, gelu: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=generator) / 8
    bias, x = (torch.randn(*shape, generator=generator) for shape in ((96,), (33, 64)))
    exact = F.linear(x, weight, bias)
    result = linear(weight, bias, precision, gelu)(x).float()
    assert (result - (F.gelu(exact) if gelu else exact)).abs().max() < ALLOWED[precision]
