"""Models and interrupted trainings on disk: safetensors and JSON, whole or not at all."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

import irgen
from irgen.errors import ArtifactError, WeightsError
from irgen.files import atomic, digest, file_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def save(path: Path, tensors: "Mapping[str, Tensor]", config: Any) -> None:
    """Writes tensors and a JSON-able ``config`` into one safetensors file, atomically."""
    from safetensors.torch import save_file  # and torch with it, which who reads need not have

    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(owned, temporary, metadata={"config": json.dumps(config, sort_keys=True)})


def load(path: Path) -> "tuple[dict[str, Tensor], Any]":
    """The tensors and config of a file ``save`` wrote. Raises ArtifactError if it is missing or
    damaged."""
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {})["config"])


def load_array(path: Path, name: str) -> np.ndarray:
    """One tensor of a file ``save`` wrote, without torch, whose import takes seconds. Raises
    ArtifactError if the file is missing or damaged, or has no such tensor."""
    with _opened(path, "np") as file:
        return file.get_tensor(name)


def load_config(path: Path, *keys: str) -> dict[str, Any]:
    """The config alone of a file ``save`` wrote, which reads no tensor. Raises ArtifactError if the
    file is missing or damaged, or if its config is not a mapping with these ``keys``."""
    with _opened(path) as file:
        config = json.loads((file.metadata() or {})["config"])
    if not isinstance(config, dict) or not config.keys() >= set(keys):
        found = ", ".join(sorted(config)) if isinstance(config, dict) else type(config).__name__
        raise ArtifactError(
            f"{path} holds something else: expected {', '.join(keys)}, found {found or 'nothing'}; "
            "run the stage that writes it (dvc repro)"
        )
    return config


@contextmanager
def _opened(path: Path, framework: str = "pt") -> Iterator[Any]:
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: run the stage that writes it (dvc repro)"
        ) from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path} is damaged or not a file of this project ({error}); "
            "delete it and run dvc repro"
        ) from None


def load_into(module: "torch.nn.Module", tensors: "Mapping[str, Tensor]", where: Path) -> None:
    """Loads every tensor into ``module``. Raises WeightsError if names or shapes differ."""
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{where} holds weights of another architecture: {first}; "
            "run the stage that writes it again"
        ) from None


class Resume:
    """The state of one training, kept outside of DVC's outputs so that a killed run goes on.

    ``depends_on`` is everything the training depends on, as JSON-able values: with another input,
    parameter or version of this package's code the state is never found.
    """

    def __init__(self, folder: Path, *depends_on: Any):
        self.path = folder / digest(source_digest(), *depends_on)[:16] / "state.safetensors"

    def load(self) -> "tuple[dict[str, Tensor], Any] | None":
        """The last state saved, or None; a damaged one counts as none."""
        if not self.path.exists():
            return None
        try:
            return load(self.path)
        except ArtifactError:
            return None

    def save(self, tensors: "Mapping[str, Tensor]", state: Any) -> None:
        """Keeps the state of an epoch's end in place of the one before."""
        save(self.path, tensors, state)

    def clear(self) -> None:
        """Forgets the training: it has ended and its outputs are written."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def source_digest() -> str:
    """A digest of this package's code."""
    package = Path(irgen.__file__).parent
    return digest([file_digest(path) for path in sorted(package.rglob("*.py"))])


def optimizer_tensors(optimizer: "torch.optim.Optimizer") -> "dict[str, Tensor]":
    """AdamW's moments by parameter number, for ``Resume.save``."""
    return {
        f"optimizer.{i}.{name}": value
        for i, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: "torch.optim.Optimizer", tensors: "Mapping[str, Tensor]") -> None:
    """The inverse of ``optimizer_tensors``."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def prefixed(tensors: "Mapping[str, Tensor]", prefix: str) -> "dict[str, Tensor]":
    """``tensors`` with ``prefix`` before every name."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def unprefixed(tensors: "Mapping[str, Tensor]", prefix: str) -> "dict[str, Tensor]":
    """Those of ``tensors`` whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
