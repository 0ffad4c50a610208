"""AdamW with layer-wise learning rates, and a warm-up + cosine schedule by step."""

import math
import re
from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW, Optimizer

from irgen.params.sections import Training

LEAST = 0.05  # of the encoder's rate: blocks that would learn more slowly stay as they are


def create_optimizer(
    encoder: nn.Module | None,
    others: Iterable[nn.Parameter],
    settings: Training,
) -> AdamW:
    """Return AdamW with this field's moments (0.9, 0.98).

    An encoder block n below the top learns at ``layer_decay``ⁿ of the encoder's rate, or not at all
    if that is less than LEAST: it then needs no gradient, and a step takes half the time. Vectors
    (norms, biases of linear layers) are not decayed; matrices and tables are.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in others:
        groups.setdefault((settings.learning_rate, parameter.ndim > 1), []).append(parameter)
    if encoder is not None:
        depths = _depths([name for name, _ in encoder.named_parameters()])
        for name, parameter in encoder.named_parameters():
            share = settings.layer_decay ** depths[name]
            if share < LEAST:
                parameter.requires_grad_(False)
                continue
            rate = settings.encoder_learning_rate * share
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": rate,
                "peak": rate,
                "weight_decay": settings.weight_decay * decayed,
            }
            for (rate, decayed), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
    )


def _depths(names: list[str]) -> dict[str, int]:
    """Return each parameter's depth: the number of blocks above it.

    Numbers in names tell the blocks; the stem is lowest, parameters after the last block are on
    top.
    """
    blocks: dict[str, tuple[int, ...]] = {}
    block: tuple[int, ...] = ()
    for name in names:  # modules are registered from the stem upwards
        numbers = re.findall(
            r"(?:blocks|layers|stages|layer)\.?(\d+)(?:\.(?:blocks\.)?(\d+))?", name
        )
        if numbers:
            block = tuple(int(n) for n in numbers[0] if n)
        blocks[name] = block
    order = {block: i for i, block in enumerate(dict.fromkeys(blocks.values()))}
    return {name: len(order) - 1 - order[block] for name, block in blocks.items()}


def set_rates(optimizer: Optimizer, step: int, settings: Training) -> float:
    """Set each group's rate for a step and return the factor, from 0 to 1.

    Linear from 0 over the steps of the warm-up, then half a cosine to 0 at the last of all steps.
    """
    total, warmup = settings.steps, round(settings.warmup * settings.steps)
    if step < warmup:
        factor = (step + 1) / warmup
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]
    return factor
