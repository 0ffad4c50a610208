"""Wrap an index as a model that MLflow serves: base64 images in, ids of similar images out."""

import base64
import binascii
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, set_model
from mlflow.pyfunc import PythonModel
from mlflow.pyfunc import save_model as save_pyfunc
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

import irgen
from irgen.errors import IrgenError

COLUMN, DEFAULT_K, MAX_K = "image", 10, 1000
DATA_URL = re.compile(r"^data:[^,]*,")
REQUIREMENTS = (  # of a machine that serves the model; the package irgen goes with the model
    *("mlflow", "boto3", "numpy", "pandas", "pillow", "polars", "pyyaml", "safetensors", "timm"),
    *("torch", "torchvision", "tqdm"),
)
# A grey square of 8 × 8 pixels, as a PNG in base64.
EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR4nGNsYIAAJgaKGAAmCACQXTClHgAAAABJ"
    "RU5ErkJggg=="
)
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.string, COLUMN)]),
    outputs=Schema(
        [ColSpec(Array(DataType.string), "ids"), ColSpec(Array(DataType.double), "scores")]
    ),
    params=ParamSchema([ParamSpec("k", DataType.long, DEFAULT_K)]),
)


class IndexModel(PythonModel):
    """An index as an MLflow model. A table with the column ``image`` (base64 of image files) gives
    ``ids`` and ``scores`` for each row, best first, at most ``params["k"]`` of them.

    ``follow_pointer(pointer, spare)`` returns the folder of an index that is not stored with the
    model; it can put a copy in the folder ``spare``.
    """

    def __init__(self, follow_pointer: Callable[[Path, Path], Path]) -> None:
        self.follow_pointer = follow_pointer

    def load_context(self, context: Any) -> None:
        """Open the index. Raise MlflowException if it is gone."""
        from irgen.index.index import Index  # takes seconds, and saving the model needs none of it

        try:
            folder = self._find_folder(context.artifacts)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self.index = Index.open(folder, device=device)
            self.index.decoder  # noqa: B018 – load the networks now, not at the first query
        except IrgenError as error:
            raise MlflowException(str(error)) from error

    def _find_folder(self, artifacts: dict[str, str]) -> Path:
        if "index" in artifacts:
            return Path(artifacts["index"])
        self.spare = tempfile.TemporaryDirectory(prefix="irgen-")  # kept as long as the model
        return self.follow_pointer(Path(artifacts["pointer"]), Path(self.spare.name))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> Any:
        """Return ``ids`` and ``scores`` for each image. Raise MlflowException (status 400), naming
        the row, if it is not an image."""
        k = (params or {}).get("k", DEFAULT_K)
        if not 1 <= k <= MAX_K:
            raise MlflowException.invalid_parameter_value(f"k: {k} is not within 1 … {MAX_K}")
        images = [_decode(row, text) for row, text in enumerate(model_input[COLUMN])]
        try:
            hits = self.index.search(images, k)
        except IrgenError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return [_format(ids, scores) for ids, scores in zip(hits.ids, hits.scores, strict=True)]


def _format(ids: Iterable[str | None], scores: Iterable[float]) -> dict[str, list]:
    pairs = [(name, float(score)) for name, score in zip(ids, scores, strict=True) if name]
    return {"ids": [name for name, _ in pairs], "scores": [score for _, score in pairs]}


def _decode(row: int, text: Any) -> bytes:
    """Return the bytes of base64 or of a data URL."""
    try:
        return base64.b64decode(DATA_URL.sub("", text), validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise MlflowException.invalid_parameter_value(
            f"image {row}: expected the bytes of an image file in base64, got {str(text)[:20]!r}…"
        ) from None


def serve_index(follow_pointer: Callable[[Path, Path], Path]) -> None:
    """Make an ``IndexModel`` the model that MLflow gets when it runs the model's code."""
    set_model(IndexModel(follow_pointer))


def save_model(
    folder: Path, code: Path, logged: LoggedModel, run: str, artifacts: dict[str, str]
) -> None:
    """Write a model to the new folder ``folder`` as MLflow loads it.

    ``code``: a file that calls ``serve_index``; the package goes with it. ``logged`` and ``run``:
    the model as MLflow knows it and the id of its run. ``artifacts``: the path of the ``index`` or
    of a ``pointer`` to it.
    """
    description = Model(
        artifact_path=logged.artifact_location,
        run_id=run,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    save_pyfunc(
        str(folder),
        python_model=str(code),
        code_paths=[str(Path(irgen.__file__).parent)],
        artifacts=artifacts,
        signature=SIGNATURE,
        input_example=(pd.DataFrame({COLUMN: [EXAMPLE]}), {"k": DEFAULT_K}),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
        mlflow_model=description,
    )
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache, ignore_errors=True)
