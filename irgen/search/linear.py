"""A trained linear map prepared for search: its weights are cast, packed or quantised once."""

import warnings
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Map = Callable[[Tensor], Tensor]  # (n, in) → (n, out)

ROWS = 640  # rows of a usual batch; oneDNN packs weights for it


def linear(weight: Tensor, bias: Tensor, precision: Precision, gelu: bool = False) -> Map:
    """Return the map x ↦ x Wᵀ + b, with ``gelu`` its GELU: weight (out, in), bias (out,) float32.

    fp32 and int8 give float32, bf16 gives bfloat16, from inputs of any float type. int8 (CPU only):
    weights are quantised per row, activations per call over their range (to 7 bits without VNNI).
    So a query's numbers depend a little on its batch.
    """
    weight, bias = weight.detach(), bias.detach()
    if precision == "int8":
        return _quantised(weight, bias, gelu)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    weight, bias = weight.to(dtype), bias.to(dtype)
    if weight.device.type == "cpu" and _can_pack(dtype):
        return _packed(weight, bias, gelu)

    def plain(x: Tensor) -> Tensor:
        y = F.linear(x.to(dtype), weight, bias)
        return F.gelu(y) if gelu else y

    return plain


def _can_pack(dtype: torch.dtype) -> bool:
    """Return whether oneDNN takes such weights on this CPU: bf16 needs more than AVX2."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _packed(weight: Tensor, bias: Tensor, gelu: bool) -> Map:
    """Return the map on weights in oneDNN's layout, with GELU applied while the product is still in
    cache. These private operators are the ones that torch.compile calls on a CPU."""
    ops, dtype = torch.ops.mkldnn, weight.dtype
    packed = ops._reorder_linear_weight(weight.contiguous(), ROWS)
    if gelu:
        return lambda x: ops._linear_pointwise(x.to(dtype), packed, bias, "gelu", [], "none")
    return lambda x: ops._linear_pointwise(x.to(dtype), packed, bias, "none", [], "")


def _quantised(weight: Tensor, bias: Tensor, gelu: bool) -> Map:
    assert weight.device.type == "cpu", "int8 runs on a CPU alone"
    ops, scales = torch.ops.quantized, weight.abs().amax(1).clamp_min(1e-12).double() / 127
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():  # torch announces a move to another package
        warnings.simplefilter("ignore", UserWarning)
        rounded = torch.quantize_per_channel(weight.float(), scales, zeros, 0, torch.qint8)
    packed = ops.linear_prepack(rounded, bias.float())
    # Without VNNI the sum of two products has 16 bits; activations of 8 bits would overflow it.
    narrow = not torch.cpu._is_vnni_supported()

    def quantised(x: Tensor) -> Tensor:
        y = ops.linear_dynamic(x.float(), packed, narrow)
        return F.gelu(y) if gelu else y

    return quantised
