"""Search an index by words, alone or together with a picture."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from irgen.errors import IndexingError
from irgen.index.hits import ImageHits
from irgen.index.networks import Images, Networks, QueryImage
from irgen.index.probabilities import refuse_bound
from irgen.index.text_query import TextMethod, TextQuery, read_texts
from irgen.index.view import View
from irgen.index.words import WordSearch, has_texts
from irgen.search import engine
from irgen.search.engine import Options, QueryFeatures
from irgen.search.snapshot import Snapshot


class TextSearch:
    """Search by words in the views of one index. Threads may share it."""

    def __init__(self, networks: Networks, word_search: WordSearch) -> None:
        self._networks, self._word_search = networks, word_search

    def method(self, view: View) -> TextMethod | None:
        """Return what answers queries in words; None: nothing does, since no image has texts."""
        if self._networks.has_text_encoder:
            return "text encoder"
        return "full-text search" if has_texts(view) else None

    def read_words(self, texts: Sequence[str | TextQuery], view: View) -> list[TextQuery]:
        """Return how texts are read: see ``Index.read_words``."""
        encoder = self._networks.models.text_encoder
        return read_texts(texts, encoder, self._word_search, view)

    def search(
        self,
        texts: Sequence[str | TextQuery],
        view: View,
        snapshot: Snapshot,
        k: int,
        options: Options,
    ) -> ImageHits:
        """Return the k best images of ``snapshot``, which is of ``view``, for each text: see
        ``Index.search_text``."""
        refuse_bound(options)
        queries = self.read_words(texts, view)
        encoded = [number for number, query in enumerate(queries) if not query.is_full_text]
        matched = [number for number, query in enumerate(queries) if query.is_full_text]
        parts = [
            self._decode(features, view, snapshot, k, options)
            for features in self._networks.read_texts([queries[n].text for n in encoded])
        ]
        parts += [self._match(queries[n].text, view, snapshot, k, options) for n in matched]
        hits = ImageHits.join(parts, k, view).take(np.argsort(encoded + matched).tolist())
        return replace(hits, texts=tuple(queries))

    def search_composed(
        self,
        images: Images,
        texts: Sequence[str | TextQuery],
        view: View,
        snapshot: Snapshot,
        k: int,
        options: Options,
    ) -> ImageHits:
        """Return the k best images of ``snapshot``, which is of ``view``, for each image together
        with the text of its number: see ``Index.search_composed``."""
        if len(images) != len(texts):
            raise IndexingError(f"{len(texts):,} texts for {len(images):,} images")
        refuse_bound(options)
        queries = self._read_encoded(texts, view)
        parts = [
            self._decode(features, view, snapshot, k, options)
            for features in self._networks.read_composed(images, [q.text for q in queries])
        ]
        return replace(ImageHits.join(parts, k, view), texts=tuple(queries))

    def read(self, text: str, image: QueryImage | None, view: View) -> QueryFeatures:
        """Return the features of one text, or of an image together with it. Raise IndexingError if
        there is no text encoder."""
        (query,) = self._read_encoded([text], view)
        if image is None:
            return next(self._networks.read_texts([query.text]))
        return next(self._networks.read_composed(self._networks.read_query(image), [query.text]))

    def _read_encoded(self, texts: Sequence[str | TextQuery], view: View) -> list[TextQuery]:
        """Return queries that the text encoder reads, whether it has learned their words or not."""
        if not self._networks.has_text_encoder:
            raise IndexingError(
                "this index has no text encoder, so words together with a picture cannot be "
                "searched or explained: build it from images with texts (download: captions in "
                "params.yaml)"
            )
        return [replace(query, is_full_text=False) for query in self.read_words(texts, view)]

    def _decode(
        self, features: QueryFeatures, view: View, snapshot: Snapshot, k: int, options: Options
    ) -> ImageHits:
        """Return the images whose codes the retriever predicts; nothing was fitted that says how
        probable they are."""
        hits = engine.search(self._networks.decoder, features, snapshot, k, options)
        return ImageHits.of(hits, view)

    def _match(
        self, text: str, view: View, snapshot: Snapshot, k: int, options: Options
    ) -> ImageHits:
        """Return the images that have one or several words of a text in their id or text columns,
        best match first."""
        rows, scores = self._word_search.rank_any(view, text)
        device = snapshot.codebooks.device
        numbers, matches = torch.from_numpy(rows).to(device), torch.from_numpy(scores).to(device)
        allowed = torch.cat(snapshot.alive)[numbers]
        hits = engine.cut_ranked(numbers[allowed], matches[allowed], snapshot, k, options)
        return ImageHits.of(hits, view)
