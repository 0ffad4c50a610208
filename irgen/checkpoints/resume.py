"""Save and restore the state of a training, so that a killed one continues."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irgen.checkpoints import tensor_file
from irgen.errors import ArtifactError
from irgen.files.digests import digest

History = list[dict[str, float]]  # one row of metrics a round
Saved = tuple[dict[str, Tensor], History]  # what a file of state holds


@dataclass(kw_only=True)
class TrainingState:
    """State that a training changes: modules by name, optimizer, other tensors, history, and the
    weights that validated ``best``."""

    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    tensors: dict[str, Tensor] = field(default_factory=dict)
    history: History = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, module: nn.Module) -> None:
        """Copy the weights of ``module``, which validated best."""
        self.best = {name: tensor.clone() for name, tensor in module.state_dict().items()}


class Resume:
    """State of a training at the end of its last round, in a file outside of DVC's outputs.

    ``depends_on``: everything that the training depends on, as JSON-able values, which are part of
    the file's path.
    """

    def __init__(self, folder: Path, name: str, *depends_on: Any):
        self.name = name
        self.path = folder / digest(name, *depends_on)[:16] / "state.safetensors"

    def read(self) -> Saved | None:
        """Return what the file holds; None if it is missing or damaged."""
        try:
            return tensor_file.load(self.path)
        except ArtifactError:
            return None

    def restore(self, state: TrainingState, saved: Saved) -> None:
        """Restore ``state`` from what ``read`` returned. Raises WeightsError if a module has
        another shape."""
        tensors, state.history = saved
        for name, module in state.modules.items():
            tensor_file.load_into(module, _select(tensors, f"module.{name}."), self.path)
        _restore_optimizer(state.optimizer, _select(tensors, "optimizer."))
        state.tensors, state.best = _select(tensors, "tensor."), _select(tensors, "best.")

    def save(self, state: TrainingState) -> None:
        """Write ``state``, replacing the one before."""
        tensors = {f"tensor.{name}": tensor for name, tensor in state.tensors.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
        for name, module in state.modules.items():
            tensors |= {f"module.{name}.{key}": t for key, t in module.state_dict().items()}
        for i, moments in state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{key}": t for key, t in moments.items()}
        tensor_file.save(self.path, tensors, state.history)

    def clear(self) -> None:
        """Delete the file: the training has ended and its outputs are written."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def _select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
