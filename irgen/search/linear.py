"""A trained linear map made ready for search: its weights cast, packed or quantised once."""

import warnings
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Map = Callable[[Tensor], Tensor]  # (n, in) → (n, out)

ROWS = 640  # rows of a usual batch, for which the packed layout is chosen


def linear(weight: Tensor, bias: Tensor, precision: Precision, gelu: bool = False) -> Map:
    """The map x ↦ x Wᵀ + b, with ``gelu`` its GELU: weight (out, in), bias (out,) float32.

    fp32 and int8 give float32, bf16 gives bfloat16, from inputs of any float type. int8 (CPU only):
    weights are quantised per row, activations per call over their range (to 7 bits where there is
    no VNNI), so that what a query gets depends a little on its batch.
    """
    weight, bias = weight.detach(), bias.detach()
    if precision == "int8":
        return _quantised(weight, bias, gelu)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    weight, bias = weight.to(kind), bias.to(kind)
    if weight.device.type == "cpu" and _packs(kind):
        return _packed(weight, bias, gelu)

    def plain(x: Tensor) -> Tensor:
        y = F.linear(x.to(kind), weight, bias)
        return F.gelu(y) if gelu else y

    return plain


def _packs(kind: torch.dtype) -> bool:
    """Whether oneDNN takes such weights on this CPU: bf16 wants more than AVX2."""
    if not torch.backends.mkldnn.is_available():
        return False
    return kind != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _packed(weight: Tensor, bias: Tensor, gelu: bool) -> Map:
    """oneDNN's own layout of the weights, and GELU applied while the product is still in cache: the
    operators that torch.compile itself calls on a CPU."""
    ops, kind = torch.ops.mkldnn, weight.dtype
    packed = ops._reorder_linear_weight(weight.contiguous(), ROWS)
    if gelu:
        return lambda x: ops._linear_pointwise(x.to(kind), packed, bias, "gelu", [], "none")
    return lambda x: ops._linear_pointwise(x.to(kind), packed, bias, "none", [], "")


def _quantised(weight: Tensor, bias: Tensor, gelu: bool) -> Map:
    assert weight.device.type == "cpu", "int8 runs on a CPU alone"
    ops, scales = torch.ops.quantized, weight.abs().amax(1).clamp_min(1e-12).double() / 127
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():  # torch's quantised tensors are to move to another package
        warnings.simplefilter("ignore", UserWarning)
        rounded = torch.quantize_per_channel(weight.float(), scales, zeros, 0, torch.qint8)
    packed = ops.linear_prepack(rounded, bias.float())
    # Without VNNI sums of two products have 16 bits, which activations of 8 bits would overflow.
    narrow = not torch.cpu._is_vnni_supported()

    def quantised(x: Tensor) -> Tensor:
        y = ops.linear_dynamic(x.float(), packed, narrow)
        return F.gelu(y) if gelu else y

    return quantised
