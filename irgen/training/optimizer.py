"""AdamW with layer-wise learning rates, and a warm-up + cosine schedule by step."""

import math
import re
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import AdamW


def groups(
    encoder: nn.Module | None,
    others: Iterable[nn.Module],
    rates: tuple[float, float],
    layer_decay: float,
    weight_decay: float,
) -> list[dict]:
    """AdamW's parameter groups: ``rates`` = (of the encoder's top, of the other modules).

    An encoder block n below the top learns at ``layer_decay``ⁿ of the encoder's rate; vectors
    (norms, the biases of linear layers) are not decayed, tables are, positions' included.
    """
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for module in others:
        for parameter in module.parameters():
            found.setdefault((rates[1], parameter.ndim > 1), []).append(parameter)
    if encoder is not None:
        depths = _depths([name for name, _ in encoder.named_parameters()])
        for name, parameter in encoder.named_parameters():
            rate = rates[0] * layer_decay ** depths[name]
            found.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": weight_decay * decayed}
        for (rate, decayed), parameters in found.items()
    ]


def _depths(names: list[str]) -> dict[str, int]:
    """How far below the top each parameter sits: blocks are told by the numbers in their names, the
    stem sits lowest, what follows the last block at the top."""
    places: dict[str, tuple[int, ...]] = {}
    last: tuple[int, ...] = ()
    for name in names:  # modules are registered from the stem upwards
        numbers = re.findall(
            r"(?:blocks|layers|stages|layer)\.?(\d+)(?:\.(?:blocks\.)?(\d+))?", name
        )
        if numbers:
            last = tuple(int(n) for n in numbers[0] if n)
        places[name] = last
    order = {place: i for i, place in enumerate(dict.fromkeys(places.values()))}
    return {name: len(order) - 1 - order[place] for name, place in places.items()}


def adamw(parameter_groups: list[dict]) -> AdamW:
    """AdamW over the groups, with the moments this field uses (0.9, 0.98)."""
    return AdamW(parameter_groups, betas=(0.9, 0.98))


def set_rates(optimizer: torch.optim.Optimizer, step: int, warmup: int, total: int) -> float:
    """Sets each group's rate for a step: linear from 0 over ``warmup`` steps, then half a cosine to
    0 at ``total``. Returns the factor, from 0 to 1."""
    if step < warmup:
        factor = (step + 1) / warmup
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]
    return factor
