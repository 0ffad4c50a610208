"""The model that MLflow serves: base64 images in, the ids most like them out.

MLflow keeps this very file with the model and runs it to load it (models from code), with the
package beside it; so nothing of it is pickled.
"""

import base64
import binascii
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from irgen.errors import IrgenError, ReleaseError
from irgen.files import read_json

COLUMN, DEFAULT_K, MOST_K = "image", 10, 1000
DATA_URL = re.compile(r"^data:[^,]*,")


class Searching(PythonModel):
    """An index that answers. A table with the column ``image`` (base64 of an image file) gives for
    each row ``ids`` and ``scores``, best first, at most ``params["k"]`` of them."""

    def load_context(self, context: Any) -> None:
        """Opens the index that the model carries, or the one that it points to. Raises
        MlflowException if that is gone."""
        from irgen.index.index import Index  # seconds that who only keeps the model need not pay

        try:
            folder = self._folder(context.artifacts)
            self.index = Index.open(folder, device=_device())
            self.index.decoder  # noqa: B018 – loads the networks now rather than at the first query
        except IrgenError as error:
            raise MlflowException(str(error)) from error

    def _folder(self, artifacts: dict[str, str]) -> Path:
        if "index" in artifacts:
            return Path(artifacts["index"])
        self.spare = tempfile.TemporaryDirectory(prefix="irgen-")  # as long as this model lives
        return _pointed_to(artifacts, Path(self.spare.name))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> Any:
        """A list with ``ids`` and ``scores`` for each image. Raises MlflowException, which the
        server answers with status 400, naming the image that is none."""
        k = (params or {}).get("k", DEFAULT_K)
        if not 1 <= k <= MOST_K:
            raise MlflowException.invalid_parameter_value(f"k: {k} is not within 1 … {MOST_K}")
        images = [_content(number, text) for number, text in enumerate(model_input[COLUMN])]
        try:
            found = self.index.search(images, k)
        except IrgenError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return [_hits(ids, scores) for ids, scores in zip(found.ids, found.scores, strict=True)]


def _hits(ids: Iterable[str | None], scores: Iterable[float]) -> dict[str, list]:
    pairs = [(name, float(score)) for name, score in zip(ids, scores, strict=True) if name]
    return {"ids": [name for name, _ in pairs], "scores": [score for _, score in pairs]}


def _content(number: int, text: Any) -> bytes:
    """The bytes that base64 stands for; a data URL will do."""
    try:
        return base64.b64decode(DATA_URL.sub("", text), validate=True)
    except (binascii.Error, ValueError, TypeError):
        found = f"{str(text)[:20]!r}…"
        raise MlflowException.invalid_parameter_value(
            f"image {number}: expected the bytes of an image file in base64, found {found}"
        ) from None


def _pointed_to(artifacts: dict[str, str], spare: Path) -> Path:
    """The release that is too large to be kept with the model: where it was, or a copy of the
    bucket's in ``spare``."""
    from irgen.releases import release, remote

    told = read_json(Path(artifacts["pointer"]))
    folder = Path(told["path"])
    if folder.is_dir() and release.bundle_digest(release.contents(folder)) == told["bundle"]:
        return folder
    if not told["url"]:
        raise ReleaseError(
            f"the index is not at {folder} any more, and was not copied to a bucket: serve another "
            "version, or set release.remote and release again"
        )
    place, _, name = told["url"].rpartition("/")
    return spare / remote.fetch(remote.connect(told["endpoint"]), place, name, spare).name


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


set_model(Searching())
