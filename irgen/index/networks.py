"""Networks of an index, loaded at first use: they encode images and decode codes."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from irgen.catalog.images.pixels import Input, decode_images
from irgen.checkpoints.calibration import CALIBRATION, load_calibration
from irgen.checkpoints.models import Models, compose_queries, load_models
from irgen.checkpoints.ranking import RANKING, load_ranking
from irgen.checkpoints.text import TEXT_ENCODER
from irgen.compute.machine import Machine, has_fast_bf16
from irgen.errors import ImageError, IndexingError
from irgen.index.folder import Folder
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.search.decoder import Decoder
from irgen.search.engine import QueryFeatures
from irgen.search.label_scorer import LabelScorer
from irgen.search.linear import PRECISIONS, Precision
from irgen.search.ranking import Ranking

BATCH = 64  # images encoded together

Images = Sequence[Input] | Tensor | np.ndarray
QueryImage = Input | Tensor | np.ndarray | QueryFeatures
Fitted = TypeVar("Fitted")


class Networks:
    """Networks of the index in ``folder``, on ``device``. Threads may share them. ``precision``: of
    the decoder; see ``choose_precision``."""

    def __init__(self, folder: Folder, device: torch.device, precision: str) -> None:
        self.device = device
        self._folder, self._precision = folder, precision
        self._loading = Lock()
        self._models: Models | None = None
        self._decoder: Decoder | None = None
        self._calibration: Calibration | Uncalibrated | None = None
        self._ranking: Ranking | Uncalibrated | None = None
        is_bf16 = folder.config.get("encoder_precision") == "bf16"
        self._machine = Machine(device=device, autocast=torch.bfloat16 if is_bf16 else None)

    @property
    def models(self) -> Models:
        """Return the networks. Raise IndexingError if their files are damaged, or if the codebooks
        beside them are not theirs."""
        with self._loading:
            if self._models is None:
                models = load_models(self._folder.check_models(), self.device)
                if not torch.equal(models.tokenizer.codebooks.cpu(), self._folder.codebooks):
                    raise IndexingError(
                        f"{self._folder.path}: the codebooks are not those of its models; build it "
                        "again"
                    )
                self._models = models
            return self._models

    @property
    def has_text_encoder(self) -> bool:
        """Tell whether there is a network that reads words; none is loaded for that."""
        return TEXT_ENCODER in self._folder.models

    @property
    def decoder(self) -> Decoder:
        """Return the retriever's decoder, prepared for search."""
        models = self.models
        with self._loading:
            if self._decoder is None:
                precision = choose_precision(self._precision, self.device)
                label_scorer = LabelScorer.build(models.tokenizer)
                self._decoder = Decoder(models.retriever.decoder, precision, label_scorer)
            return self._decoder

    @property
    def calibration(self) -> Calibration | Uncalibrated:
        """Return the map from cosine to the probability of the same label, or why there is none.
        Raise IndexingError or ArtifactError if its file is damaged."""
        with self._loading:
            if self._calibration is None:
                self._calibration = self._load_fitted(CALIBRATION, load_calibration)
            return self._calibration

    @property
    def ranking(self) -> Ranking | Uncalibrated:
        """Return what sorts hits by the probability of the query's label, or why there is none.
        Raise IndexingError or ArtifactError if its file is damaged."""
        with self._loading:
            if self._ranking is None:
                self._ranking = self._load_fitted(RANKING, load_ranking)
            return self._ranking

    def _load_fitted(self, name: str, load: Callable[[Path], Fitted]) -> Fitted | Uncalibrated:
        """Load the file ``name`` beside the models, which an index may lack."""
        path = self._folder.check_models() / name
        if not path.exists():
            return Uncalibrated(reason=f"the index was created without a {path.stem}")
        return load(path)

    def share(self, other: "Networks") -> None:
        """Use the networks of another index instead of loading the same ones again; do nothing if
        they are others."""
        if self._folder.models == other._folder.models and self.device == other.device:
            self._models, self._decoder = other.models, other.decoder

    def read_queries(self, images: Images | QueryFeatures) -> Iterator[QueryFeatures]:
        """Yield the query features of images, batch by batch: in fp32 where bf16 would only be
        emulated. Raise ImageError for an image that cannot be decoded."""
        if isinstance(images, QueryFeatures):
            for start in range(0, len(images.embedding), BATCH):
                part = slice(start, start + BATCH)
                columns = (images.summary[part], images.tokens[part], images.embedding[part])
                yield QueryFeatures(*(column.to(self.device) for column in columns))
            return
        models, machine = self.models, self._machine
        if not has_fast_bf16(self.device):
            machine = Machine(device=self.device, autocast=None)
        for start in range(0, len(images), BATCH):
            pixels = decode_images(images[start : start + BATCH], models.decoding)
            with machine.precision():
                features = models.encode(torch.from_numpy(pixels))
            yield features

    def read_texts(self, texts: Sequence[str]) -> Iterator[QueryFeatures]:
        """Yield the query features of texts, batch by batch; only if there is a text encoder."""
        for start in range(0, len(texts), BATCH):
            yield self.models.encode_texts(texts[start : start + BATCH])

    def read_composed(
        self, images: Images | QueryFeatures, texts: Sequence[str]
    ) -> Iterator[QueryFeatures]:
        """Yield the query features of images, each together with the text of its number, batch by
        batch. Raise ImageError for an image that cannot be decoded."""
        pairs = zip(self.read_queries(images), self.read_texts(texts), strict=True)
        return (compose_queries(image, text) for image, text in pairs)

    def read_query(self, image: QueryImage) -> QueryFeatures:
        """Return the features of one query, an image unless it has them already. Raise ImageError
        if it cannot be decoded."""
        if isinstance(image, QueryFeatures):
            return next(self.read_queries(image))
        images = image[None] if isinstance(image, Tensor | np.ndarray) else [image]
        return next(self.read_queries(images))

    def embed(self, images: Images) -> Tensor:
        """Return unit embeddings (n, D) of images, on the CPU, in the precision of the pipeline, so
        that codes are the same. Raise ImageError for an image that cannot be decoded."""
        models = self.models
        if isinstance(images, Input):
            decode_images(images, models.decoding)  # raises, and says how to write it
        vectors = [torch.empty(0, self._folder.codebooks.shape[2])]
        for start in range(0, len(images), BATCH):
            try:
                pixels = decode_images(images[start : start + BATCH], models.decoding)
            except ImageError as error:
                if not start:
                    raise
                raise ImageError(f"from image {start} on, {error}") from error
            with self._machine.precision():
                vectors.append(models.embed(torch.from_numpy(pixels)).cpu())
        return torch.cat(vectors)


def choose_precision(name: str, device: torch.device) -> Precision:
    """Return the decoder's precision; ``auto`` is bf16 where the hardware supports it, else fp32.
    Raise IndexingError for an unknown name, or for int8 on anything but a CPU."""
    if name == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    for precision in PRECISIONS:
        if name == precision and (name != "int8" or device.type == "cpu"):
            return precision
    raise IndexingError(
        f"precision: {name!r} cannot be used here; allowed: auto, fp32, bf16, on a CPU int8"
    )
