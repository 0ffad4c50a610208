"""Live index: images are added, replaced and removed while others search."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.catalog.images.pixels import Input
from irgen.checkpoints.models import Models
from irgen.compute.machine import run_on_one_core
from irgen.errors import IndexingError
from irgen.index import base_files, folder, metadata
from irgen.index.filters import Allow, Snapshots, allowed_rows
from irgen.index.hits import Explanation, ImageHits, explain
from irgen.index.kinds import Kinds
from irgen.index.networks import Images, Networks, QueryImage
from irgen.index.probabilities import bound_cosine, bound_score, compute_same_label
from irgen.index.rows import Rows, check_ids, check_rows, check_table
from irgen.index.store import Store
from irgen.index.text_query import TextMethod, TextQuery
from irgen.index.text_search import TextSearch
from irgen.index.view import View
from irgen.index.words import WordSearch
from irgen.search import engine
from irgen.search.brute_force import brute_force_search
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.search.decoder import Decoder, DecoderState
from irgen.search.engine import Options, QueryFeatures
from irgen.search.ranking import Ranking
from irgen.search.relevance import Ranker
from irgen.search.snapshot import Snapshot


class Index(Store):
    """An index opened from its folder. Any number of processes may read it while one writes.

    When a method that changes the index returns, the change is on the disk, and every search that
    begins afterwards, in any process, finds it. A search that is running is not disturbed. Threads
    may share one ``Index``. Use it as a context manager, or ``close`` it.
    """

    def __init__(self, path: Path, *, writable: bool, wait: float, device: str, precision: str):
        super().__init__(path, writable=writable, wait=wait)
        self.device = torch.device(device)
        self._networks = Networks(self.folder, self.device, precision)
        self._word_search = WordSearch()
        self._text_search = TextSearch(self._networks, self._word_search)
        self._snapshots = Snapshots(self.device, self._word_search)
        self._kinds = Kinds(self.device)
        self._defaults = _default_options(self.folder.config)

    @staticmethod
    def create(
        path: Path | str,
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
        """Create an index at ``path``: whole, or not at all.

        ``models_writer`` writes the models into the folder it is given. ``config``: JSON values;
        ``search`` in it holds the default options of a search, and ``encoder_precision`` (fp32 or
        bf16; default fp32) is that in which images are encoded. ``items``: ``id`` and metadata
        columns; row by row with it ``codes`` (N, M) integers, ``embeddings`` (N, D) floats, unit
        vectors, and ``trained`` (N,) bool, whether the retriever was trained on the image.
        ``codebooks`` (M, L, D) are the tokenizer's. N may be 0. Raise IndexingError if any of this
        does not fit, or if ``path`` exists; with ``replace``, an index without a writer is
        replaced.
        """
        rows = check_rows(check_table(items), embeddings, codes, trained, codebooks)

        def write_base(target: Path) -> None:
            base_files.write(target, rows, lambda at: rows.embeddings[at], codebooks.shape[2])

        folder.create(
            Path(path),
            write_models=models_writer,
            write_base=write_base,
            config=config,
            codebooks=codebooks,
            replace=replace,
        )

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        writable: bool = False,
        wait: float = 0.0,
        device: str = "cpu",
        precision: str = "auto",
    ) -> "Index":
        """Open the index at ``path`` to search it or, if ``writable``, to change it, too. Models
        are loaded when they are first needed.

        Raise IndexingError if there is no index, or if it is damaged or of a newer version;
        LockedError if ``writable`` and it still has another writer after ``wait`` seconds.
        """
        path = Path(path)
        return cls(path, writable=writable, wait=wait, device=device, precision=precision)

    @property
    def models(self) -> Models:
        """Return the networks, loaded at first use. Raise IndexingError if their files are
        damaged."""
        return self._networks.models

    @property
    def decoder(self) -> Decoder:
        """Return the retriever's decoder, prepared for search at first use."""
        return self._networks.decoder

    @property
    def calibration(self) -> Calibration | Uncalibrated:
        """Return the map from cosine to the probability of the same label, or why there is none.
        Raise IndexingError or ArtifactError if its file is damaged."""
        return self._networks.calibration

    @property
    def ranking(self) -> Ranking | Uncalibrated:
        """Return what sorts hits by the probability of the query's label, or why there is none.
        Raise IndexingError or ArtifactError if its file is damaged."""
        return self._networks.ranking

    def share_models(self, other: "Index") -> None:
        """Use the networks of an open index instead of loading the same ones again; do nothing if
        they are others."""
        self._networks.share(other._networks)

    def add(
        self,
        images: Images,
        ids: Sequence[str],
        metadata: pl.DataFrame | None = None,
    ) -> None:
        """Add images: paths, bytes of image files, PIL images, or pixels (n, C, H, W) uint8 as the
        encoder expects them. Otherwise as ``add_encoded``. Raise ImageError, having added none, for
        an image that cannot be decoded."""
        self.refuse_present(check_ids(ids))
        self.add_encoded(self._encode(images, ids), ids, metadata)

    def upsert(
        self,
        images: Images,
        ids: Sequence[str],
        metadata: pl.DataFrame | None = None,
    ) -> None:
        """As ``add``, but replace images that have the same id."""
        self.upsert_encoded(self._encode(images, ids), ids, metadata)

    def add_encoded(
        self,
        embeddings: Tensor | np.ndarray,
        ids: Sequence[str],
        metadata: pl.DataFrame | None = None,
        *,
        codes: Tensor | np.ndarray | None = None,
    ) -> None:
        """Add images by their unit ``embeddings`` (n, D): all of them, or none and an error.

        ``metadata``: one row per image; missing columns are null. ``codes`` (n, M), by default the
        tokenizer's. Raise IndexingError if an id is in the index or given twice, if anything does
        not fit the index, if the index is not writable, or if the disk is full.
        """
        self.put(self._check(embeddings, ids, metadata, codes), replace=False)

    def upsert_encoded(
        self,
        embeddings: Tensor | np.ndarray,
        ids: Sequence[str],
        metadata: pl.DataFrame | None = None,
        *,
        codes: Tensor | np.ndarray | None = None,
    ) -> None:
        """As ``add_encoded``, but replace images that have the same id, with their metadata."""
        self.put(self._check(embeddings, ids, metadata, codes), replace=True)

    def options(self, k: int) -> Options:
        """Return the options with which a search for ``k`` images runs by default: the index's own,
        with at least k beams. Change some with ``dataclasses.replace``. Raise IndexingError if k is
        negative or too large."""
        engine.check_count("k", k, least=0)
        return replace(self._defaults, beams=max(k, self._defaults.beams))

    def search(
        self, images: Images | QueryFeatures, k: int = 10, options: Options | None = None
    ) -> ImageHits:
        """Return the k images that are most like each of ``images``, best first; fewer if there are
        no more, or if the options drop some.

        ``images``: as for ``add``, or features from ``models.encode``. ``options``: by default
        ``options(k)`` with ``trust_copies``. Raise ImageError for an image that cannot be decoded,
        IndexingError for invalid options.
        """
        options = self._check_options(options, k, trust_copies=True)
        ranked = options.rerank and isinstance(self.ranking, Ranking)
        options = bound_score(options) if ranked else bound_cosine(options, self.calibration)
        self.refresh()
        view = self.view
        snapshot = self.snapshot(view, options.allow, options.words)
        ranker = self.ranker(view, labelled=options.trust_copies) if ranked else None
        parts = []
        for features in self._networks.read_queries(images):
            hits = engine.search(self.decoder, features, snapshot, k, options, ranker)
            same_label = hits.scores if ranked else compute_same_label(self.calibration, hits)
            parts.append(ImageHits.of(hits, view, same_label))
        return ImageHits.join(parts, k, view)

    def search_ids(
        self, ids: Sequence[str], k: int = 10, options: Options | None = None
    ) -> ImageHits:
        """Return the k images most like each of some images of the index, without itself, by their
        stored embeddings: no file is read and no network runs. ``options``: by default
        those for k + 1 images. Raise IndexingError if an id is not in the index."""
        options = options or self.options(min(k + 1, engine.MOST_HITS))
        options = bound_cosine(self._check_options(options, k), self.calibration)
        self.refresh()
        view = self.view
        rows = torch.from_numpy(view.find_existing(ids)).to(self.device)
        if not len(rows):
            return ImageHits.join([], k, view)
        vectors = self.snapshot(view).gather(rows, "embeddings").float()
        snapshot = self.snapshot(view, options.allow, options.words)
        hits = engine.search_embeddings(vectors, snapshot, k, options, excluded=rows)
        return ImageHits.of(hits, view, compute_same_label(self.calibration, hits))

    def search_brute_force(
        self, images: Images | QueryFeatures, k: int = 10, options: Options | None = None
    ) -> ImageHits:
        """Return the k images of the highest cosine to each of ``images``, by comparing it with
        every one, so that a search can be judged by it. Of ``options``, ``allow`` and ``words``
        count."""
        options = bound_cosine(self._check_options(options, k), self.calibration)
        self.refresh()
        view = self.view
        snapshot = self.snapshot(view, options.allow, options.words)
        rows = snapshot.alive_rows()
        vectors = snapshot.gather(rows, "embeddings")
        parts = []
        for features in self._networks.read_queries(images):
            result = brute_force_search(features.embedding, vectors, k)
            hits = engine.Hits.of_cosines(result, rows)
            parts.append(ImageHits.of(hits, view, compute_same_label(self.calibration, hits)))
        return ImageHits.join(parts, k, view)

    def read_words(self, texts: Sequence[str | TextQuery]) -> list[TextQuery]:
        """Return how ``search_text`` reads texts, which it takes in their place. Raise its
        errors."""
        self.refresh()
        return self._text_search.read_words(texts, self.view)

    def search_text(
        self,
        texts: Sequence[str | TextQuery],
        k: int = 10,
        options: Options | None = None,
    ) -> ImageHits:
        """Return the k images that fit each of ``texts`` best, such as "green apple"; fewer if
        there are no more, or if the options drop some.

        The retriever predicts codes from what the text encoder reads, and full-text search finds
        images that have some of the words. Scores from 0 to 1 sort both: how well the texts match
        (BM25), and the cosine. Where there is no text encoder, or images have words that it has not
        learned, full-text search answers alone, and BM25 sorts; ``texts`` of the result tells the
        two apart. Words that no image's texts have are left out: raise UnknownWordsError if there
        are no others. Raise IndexingError for invalid options, and if the images have no texts.
        """
        options = self._check_options(options, k)
        self.refresh()
        view = self.view
        snapshot = self.snapshot(view, options.allow, options.words)
        return self._text_search.search(texts, view, snapshot, k, options)

    def search_composed(
        self,
        images: Images,
        texts: Sequence[str | TextQuery],
        k: int = 10,
        options: Options | None = None,
    ) -> ImageHits:
        """Return the k images that fit each of ``images`` together with the text of its number
        best, such as a photo of a shirt and "in red", sorted as for images; nothing says how
        probable they are. Otherwise as ``search_text``; raise IndexingError without a text encoder,
        ImageError for an image that cannot be decoded."""
        options = self._check_options(options, k)
        self.refresh()
        view = self.view
        snapshot = self.snapshot(view, options.allow, options.words)
        ranker = self.ranker(view)
        return self._text_search.search_composed(images, texts, view, snapshot, k, options, ranker)

    def read_text(self, text: str, image: QueryImage | None = None) -> QueryFeatures:
        """Return the features of words, or of an image together with them, as ``explain`` takes
        them. Raise the errors of ``search_composed``."""
        self.refresh()
        return self._text_search.read(text, image, self.view)

    def explain(self, image: QueryImage, ids: Sequence[str]) -> list[Explanation]:
        """Explain images of the index as hits of one query, an image or its features: code,
        log-probabilities level by level, how many images share the code. Raise IndexingError if an
        id is not in the index."""
        self.refresh()
        view = self.view
        view.base.check_embeddings_once()
        rows = view.find_existing(ids)
        return explain(self.decoder, self._networks.read_query(image), view, rows)

    def start_decoding(self, image: QueryImage) -> DecoderState:
        """Return the state of the decoder before the first code of one query, an image or its
        features. Raise ImageError if it cannot be decoded."""
        features = self._networks.read_query(image)
        return self.decoder.start(features.summary, features.tokens)

    def snapshot(
        self, view: View, allow: Allow | None = None, words: str | None = None
    ) -> Snapshot:
        """Return what a search in ``view`` goes through, on the device of the search: all images,
        or those that ``allow`` lets through and that have all ``words``. Raise IndexingError for a
        filter that fails, and if the embeddings are damaged, which are checked once."""
        view.base.check_embeddings_once()
        return self._snapshots.of(view, allow, words)

    def matching_rows(
        self, view: View, allow: Allow | None = None, words: str | None = None
    ) -> np.ndarray:
        """Return the rows (n,) of the images of ``view`` that ``allow`` lets through and that have
        all ``words``: in order, or with ``words`` the best match first. Raise IndexingError as
        ``snapshot`` does."""
        alive = view.snapshot.alive_rows().numpy()
        rows = alive if words is None else self._word_search.rank(view, words)
        return rows if allow is None else rows[allowed_rows(allow, view).numpy()[rows]]

    def ranker(self, view: View, *, labelled: bool = False) -> Ranker | None:
        """Return what ranks the rows of ``view`` by label, on the device of the search; None in an
        index without a ranking. ``labelled``: copies of images have their labels."""
        ranking, label_scorer = self.ranking, self.decoder.label_scorer
        if isinstance(ranking, Uncalibrated) or label_scorer is None:
            return None
        kinds = self._kinds.of(view, self.models.labels, label_scorer.code_labels)
        known = self._kinds.mark_labelled(view) if labelled else None
        return Ranker(ranking, kinds, self.snapshot(view).trained, known)

    @property
    def text_method(self) -> TextMethod | None:
        """Return what answers queries in words; None: nothing does."""
        return self._text_search.method(self.view)

    def _check_options(
        self, options: Options | None, k: int, *, trust_copies: bool = False
    ) -> Options:
        """Return the options of a search for k images; ``trust_copies``: of the default ones. Raise
        IndexingError if k is too small or too large."""
        engine.check_count("k", k)
        return options or replace(self.options(k), trust_copies=trust_copies)

    def embed(self, images: Images) -> Tensor:
        """Return the unit embeddings (n, D) of images, on the CPU, as ``add_encoded`` takes them.
        ``images``: as for ``add``. Raise ImageError for an image that cannot be decoded."""
        return self._networks.embed(images)

    def _encode(self, images: Any, ids: Sequence[str]) -> Tensor:
        """Return the embeddings (n, D) of images, one per id."""
        if not isinstance(images, Input) and len(images) != len(ids):
            raise IndexingError(f"{len(images):,} images for {len(ids):,} ids")
        return self.embed(images)

    def _check(
        self,
        embeddings: Tensor | np.ndarray,
        ids: Sequence[str],
        columns: pl.DataFrame | None,
        codes: Tensor | np.ndarray | None,
    ) -> Rows:
        """Return new images as rows. Raise IndexingError if they do not fit the index."""
        names, codebooks = check_ids(ids), self.folder.codebooks
        table = metadata.complete(columns, len(names), self.schema)
        ids_column = pl.Series(metadata.ID, names, dtype=pl.String)
        table = metadata.join_columns([ids_column, *table.get_columns()])
        trained = torch.zeros(len(names), dtype=torch.bool)
        return run_on_one_core(check_rows, table, embeddings, codes, trained, codebooks)


def _default_options(config: dict[str, Any]) -> Options:
    own, names = config.get("search", {}), {field.name for field in fields(Options)}
    return Options(**{name: value for name, value in own.items() if name in names})
