"""The live index: images come, are replaced and go while others search."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.catalog.images import Input, decode_images
from irgen.checkpoints.calibration import CALIBRATION, load_calibration
from irgen.checkpoints.models import Models, load_models
from irgen.compute import aside
from irgen.errors import ImageError, IndexingError
from irgen.index import bundle, creation, generation, metadata, rows
from irgen.index.explanation import Explanation, explain
from irgen.index.filters import Allow
from irgen.index.found import Found
from irgen.index.items import ID, checked_ids, checked_items
from irgen.index.rows import Rows
from irgen.index.searcher import Searcher, chosen_precision
from irgen.index.store import Store
from irgen.index.view import View
from irgen.search.calibration import Uncalibrated
from irgen.search.decoder import Decoder
from irgen.search.engine import QueryFeatures
from irgen.search.label_scorer import LabelScorer

BATCH = 64  # images that go through the encoder together

Images = Sequence[Input] | Tensor | np.ndarray


class Index:
    """An index opened from its folder. Any number of processes may read it while one writes.

    What a writing call has returned from is on the disk, and every search that begins afterwards
    finds it; a search under way is not disturbed. Many threads may share one ``Index``. Use it as a
    context manager, or ``close`` it.
    """

    def __init__(self, store: Store, device: str, precision: str):
        self._store, self._loading = store, Lock()
        self._models: Models | None = None
        self._searcher: Searcher | None = None
        self._decoder: Decoder | None = None
        self.device, self.precision = torch.device(device), precision

    @staticmethod
    def create(
        folder: Path | str,
        *,
        models_writer: Callable[[Path], Any],
        config: dict[str, Any],
        items: pl.DataFrame,
        codebooks: Tensor,
        codes: Tensor | np.ndarray,
        embeddings: Tensor | np.ndarray,
        trained: Tensor | np.ndarray,
        replace: bool = False,
    ) -> None:
        """Makes a new index at ``folder``: whole, or not at all.

        ``models_writer`` writes the models into the folder it is given; ``config`` is anything that
        JSON can hold. ``items``: ``id`` and metadata columns; row by row with it ``codes`` (N, M)
        integers, ``embeddings`` (N, D) floats, unit vectors, and ``trained`` (N,) bool, whether the
        retriever was trained on the image. ``codebooks`` (M, L, D) are the tokenizer's. N may be 0.
        Raises IndexingError if any of this does not fit, or if ``folder`` is there already; with
        ``replace`` it takes the place of an index that has no writer.
        """
        checked = rows.checked(checked_items(items), embeddings, codes, trained, codebooks)

        def content(place: Path) -> None:
            generation.write(
                place, checked, lambda places: checked.embeddings[places], codebooks.shape[2]
            )

        creation.create(
            Path(folder),
            models=models_writer,
            config=config,
            codebooks=codebooks,
            content=content,
            replace=replace,
        )

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        writable: bool = False,
        device: str = "cpu",
        precision: str = "auto",
    ) -> "Index":
        """The index at ``folder``, to search it or, if ``writable``, to change it too. Models are
        not loaded before they are needed.

        Raises IndexingError if there is no index, if it is damaged or of a newer version, or if
        ``writable`` and another writer has it.
        """
        return cls(Store.open(Path(folder), writable=writable), device, precision)

    def close(self) -> None:
        """Lets the next writer in. Closing twice does no harm."""
        self._store.close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Images in the index."""
        return len(self.view.snapshot)

    @property
    def view(self) -> View:
        """What is in the index now: a snapshot to search, and the ids and metadata of its rows.
        Take it once for whatever must agree."""
        return self._store.view

    @property
    def models(self) -> Models:
        """The networks, loaded at first use. Raises IndexingError if their files are damaged, or
        if the codebooks beside them are not theirs."""
        with self._loading:
            if self._models is None:
                own = self._store.bundle
                found = load_models(own.check_models(), self.device)
                if not torch.equal(found.tokenizer.codebooks.cpu(), own.codebooks):
                    raise IndexingError(
                        f"{own.folder}: the codebooks are not those of its models; make it again"
                    )
                self._models = found
            return self._models

    def add(
        self,
        images: Images,
        ids: Sequence[str],
        metadata: pl.DataFrame | None = None,
    ) -> None:
        """Adds images: paths, bytes of image files, PIL images, or pixels (n, C, H, W) uint8 as the
        encoder wants them. Otherwise as ``add_encoded``; ImageError for an image that cannot be
        decoded, and then none is added."""
        self._store.refuse_known(checked_ids(ids))
        self.add_encoded(self._encoded(images, ids), ids, metadata)

    def upsert(
        self,
        images: Images,
        ids: Sequence[str],
        metadata: pl.DataFrame | None = None,
    ) -> None:
        """As ``add``, but images take the place of those whose id they have."""
        self.upsert_encoded(self._encoded(images, ids), ids, metadata)

    def add_encoded(
        self,
        embeddings: Tensor | np.ndarray,
        ids: Sequence[str],
        metadata: pl.DataFrame | None = None,
        *,
        codes: Tensor | np.ndarray | None = None,
    ) -> None:
        """Adds images by their unit ``embeddings`` (n, D); all of them, or none and an error.

        ``metadata``: a row an image; columns left out are null. ``codes`` (n, M), by default the
        tokenizer's. Raises IndexingError if an id is in the index or given twice, or if anything
        does not fit the index; also if the index is not writable, or the disk is full.
        """
        self._store.put(self._rows(embeddings, ids, metadata, codes), known=False)

    def upsert_encoded(
        self,
        embeddings: Tensor | np.ndarray,
        ids: Sequence[str],
        metadata: pl.DataFrame | None = None,
        *,
        codes: Tensor | np.ndarray | None = None,
    ) -> None:
        """As ``add_encoded``, but images take the place of those whose id they have; of these
        nothing is left, their metadata neither."""
        self._store.put(self._rows(embeddings, ids, metadata, codes), known=True)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes images; all of them, or none and an IndexingError if one is not in the index."""
        self._store.remove(ids)

    def compact(self) -> None:
        """Writes all that is in the index as a fresh generation: afterwards it is, byte for byte,
        what a new index of the same images would be. Searches go on, and other threads' changes.

        Raises IndexingError, and changes nothing, if the disk is full or the embeddings it reads
        are damaged.
        """
        self._store.compact()

    def save(self, folder: Path | str) -> None:
        """Writes a new index of what is in this one now, compacted. Raises IndexingError if
        ``folder`` is there already, the disk is full, or what is read is damaged."""
        self._store.save(Path(folder))

    def refresh(self) -> None:
        """Takes in what a writer in another process has acknowledged since this index last looked;
        where that is nothing, it takes two looks at the folder."""
        self._store.refresh()

    def verify(self) -> None:
        """Reads every file of the index again. Raises IndexingError for the first one that is
        missing or damaged."""
        bundle.verify(self._store.bundle)

    def info(self) -> dict[str, Any]:
        """What the index is, as plain values: images in it, of them ``trained`` on and ``added``
        since the last compaction; ``dead_rows`` of images that are gone; the shape of codes and
        embeddings; metadata columns; bytes on the disk; the configuration."""
        return self._store.info()

    def search(
        self,
        images: Images | QueryFeatures,
        k: int = 10,
        *,
        beams: int | None = None,
        candidates: int | None = None,
        fresh_beams: int | None = None,
        rerank: bool = True,
        distinct: float | None = None,
        allow: Allow | None = None,
        min_score: float | None = None,
        min_probability: float | None = None,
    ) -> Found:
        """The k images of the index that are most like each of ``images``, best first; fewer where
        there are no more, or none good enough.

        ``images``: as of ``add``, or their ``models.encode`` output. ``beams``, ``candidates``,
        ``fresh_beams`` (by default the index's own settings, and at least k beams), ``rerank``,
        ``distinct`` and ``min_score``: see ``irgen.search.engine.Options``. ``allow``: a polars
        expression over id and metadata, or a collection of ids; only images it lets through are
        found, and k of them if there are so many. ``min_probability``: drop images less likely than
        that to carry the query's label. Raises ImageError for an image that cannot be decoded,
        IndexingError for settings that make no sense.
        """
        given = {
            "beams": beams,
            "candidates": candidates,
            "fresh_beams": fresh_beams,
            "rerank": rerank,
            "distinct": distinct,
            "min_score": min_score,
        }
        options = self.searcher.options(k, given, min_probability)
        self.refresh()
        view = self.view
        parts = [
            self.searcher.written(self.decoder, read, view, k, options, allow)
            for read in self._read(images)
        ]
        return Found.joined(parts, k)

    def search_ids(
        self,
        ids: Sequence[str],
        k: int = 10,
        *,
        beams: int | None = None,
        candidates: int | None = None,
        distinct: float | None = None,
        allow: Allow | None = None,
        min_score: float | None = None,
        min_probability: float | None = None,
    ) -> Found:
        """The k images most like each of some images of the index, but for itself, by their stored
        embeddings: no file is read and no network runs. Arguments as of ``search``. Raises
        IndexingError if an id is not in the index."""
        given = {
            "beams": beams,
            "candidates": candidates,
            "distinct": distinct,
            "min_score": min_score,
        }
        options = self.searcher.options(k + 1, given, min_probability)  # one finds itself
        self.refresh()
        return self.searcher.like(ids, self.view, k, options, allow)

    def explain(self, image: Input | Tensor | np.ndarray, ids: Sequence[str]) -> list[Explanation]:
        """What the retriever thinks of images of the index as answers to one query image: code,
        log-probabilities level by level, how many images share the code. Raises IndexingError if an
        id is not in the index."""
        self.refresh()
        view = self.view
        rows = view.existing(ids)
        one = image[None] if isinstance(image, Tensor | np.ndarray) else [image]
        (read,) = self._read(one)
        return explain(self.decoder, read, view, rows)

    @property
    def searcher(self) -> Searcher:
        """What the searches share; made at first use. Raises IndexingError or ArtifactError if the
        calibration is damaged."""
        with self._loading:
            if self._searcher is None:
                own = self._store.bundle
                path = own.check_models() / CALIBRATION
                known = (
                    load_calibration(path)
                    if path.exists()
                    else Uncalibrated(reason="it was made without a calibration")
                )
                self._searcher = Searcher(own.config, known, self.device)
            return self._searcher

    @property
    def decoder(self) -> Decoder:
        """The retriever's decoder made ready for search, at first use."""
        models = self.models
        with self._loading:
            if self._decoder is None:
                precision = chosen_precision(self.precision, self.device)
                label_scorer = LabelScorer.build(models.tokenizer)
                self._decoder = Decoder(models.retriever.decoder, precision, label_scorer)
            return self._decoder

    def _read(self, images: Images | QueryFeatures) -> Iterator[QueryFeatures]:
        """What the models make of query images, batch by batch."""
        if isinstance(images, QueryFeatures):
            for start in range(0, len(images.embedding), BATCH):
                part = slice(start, start + BATCH)
                columns = (images.summary[part], images.tokens[part], images.embedding[part])
                yield QueryFeatures(*(column.to(self.device) for column in columns))
            return
        models = self.models
        for start in range(0, len(images), BATCH):
            pixels = decode_images(images[start : start + BATCH], models.decoding)
            yield models.encode(torch.from_numpy(pixels))

    def _rows(
        self,
        embeddings: Tensor | np.ndarray,
        ids: Sequence[str],
        given: pl.DataFrame | None,
        codes: Tensor | np.ndarray | None,
    ) -> Rows:
        names = checked_ids(ids)
        columns = metadata.complete(given, len(names), self.view.items.schema)
        frame = columns.insert_column(0, pl.Series(ID, names, dtype=pl.String))
        trained = torch.zeros(len(names), dtype=torch.bool)
        codebooks = self._store.bundle.codebooks

        def made() -> Rows:
            found = rows.checked(frame, embeddings, codes, trained, codebooks)
            return replace(found, embeddings=found.embeddings.half())

        return aside(made)

    def _encoded(self, images: Any, ids: Sequence[str]) -> Tensor:
        """Embeddings (n, D) of images, one an id."""
        models = self.models
        if isinstance(images, Input):
            decode_images(images, models.decoding)  # refuses, and says how to write it
        if len(images) != len(ids):
            raise IndexingError(f"{len(images):,} images for {len(ids):,} ids")
        found = [torch.empty(0, self._store.bundle.codebooks.shape[2])]
        for start in range(0, len(images), BATCH):
            try:
                pixels = decode_images(images[start : start + BATCH], models.decoding)
            except ImageError as error:
                if not start:
                    raise
                raise ImageError(f"from image {start} on, {error}") from error
            found.append(models.embed(torch.from_numpy(pixels)).cpu())
        return torch.cat(found)
