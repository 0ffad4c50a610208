"""Tensors and their configuration in one safetensors file, written whole or not at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from irgen.errors import ArtifactError, WeightsError
from irgen.files.records import damaged
from irgen.files.sealed import SEAL, UNSEALED, check_seal, write_safetensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def save(path: Path, tensors: "Mapping[str, Tensor]", config: Any) -> None:
    """Write tensors and a JSON-able ``config`` into one safetensors file, atomically. Raises
    NumberError, having written nothing, for a tensor that is not finite."""
    from safetensors.torch import save_file  # imports torch, which readers need not have

    _check_finite(tensors, path, "nothing was written: lower the learning rate and run again")
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"config": UNSEALED + json.dumps(config, sort_keys=True)}
    write_safetensors(path, lambda temporary: save_file(owned, temporary, metadata=metadata))


def load(path: Path) -> "tuple[dict[str, Tensor], Any]":
    """Return tensors and config of a file that ``save`` wrote. Raises ArtifactError if it is
    missing or damaged, NumberError if a tensor is not finite."""
    with _opened(path) as file:
        check_seal(path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = _read_config(file)
    _check_finite(tensors, path, "delete the file and run the stage that writes it (dvc repro)")
    return tensors, config


def _check_finite(tensors: "Mapping[str, Tensor]", path: Path, remedy: str) -> None:
    """Raise NumberError, naming the tensor, for NaN or infinity."""
    from irgen.compute.checks import check_finite

    for name, tensor in tensors.items():
        check_finite(tensor, f"{path}: {name}", remedy)


def load_array(path: Path, name: str) -> np.ndarray:
    """Return one tensor of a file without importing torch, which takes seconds. Raises
    ArtifactError if the file is missing or damaged, or has no such tensor."""
    with _opened(path, "np") as file:
        check_seal(path)
        return file.get_tensor(name)


def load_config(path: Path, *keys: str) -> dict[str, Any]:
    """Return the config of a file, reading no tensor. Raises ArtifactError if the file is missing
    or damaged, or if its config is not a mapping with these ``keys``."""
    with _opened(path) as file:
        config = _read_config(file)
    if not isinstance(config, dict) or not config.keys() >= set(keys):
        content = ", ".join(sorted(config)) if isinstance(config, dict) else type(config).__name__
        raise ArtifactError(
            f"{path} holds something else: expected {', '.join(keys)}, found "
            f"{content or 'nothing'}; run the stage that writes it (dvc repro)"
        )
    return config


def _read_config(file: Any) -> Any:
    text = (file.metadata() or {})["config"]
    return json.loads(text[len(UNSEALED) :] if text.startswith(SEAL) else text)


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
        raise damaged(path, f"or not a file of this project: {error}") from None


def load_into(module: "torch.nn.Module", tensors: "Mapping[str, Tensor]", where: Path) -> None:
    """Load every tensor into ``module``. Raises WeightsError if names or shapes differ."""
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{where} holds weights of another architecture: {first}; "
            "run the stage that writes it again"
        ) from None
