"""Search an index by words, alone or together with a picture."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from irgen.errors import IndexingError
from irgen.index.hits import ImageHits
from irgen.index.networks import Images, Networks, QueryImage
from irgen.index.probabilities import refuse_bound
from irgen.index.text_query import TextMethod, TextQuery, read_texts
from irgen.index.view import View
from irgen.index.words import WordSearch, has_texts
from irgen.search import engine
from irgen.search.engine import Matches, Options, QueryFeatures
from irgen.search.relevance import Ranker
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
        parts = self._search_both([queries[n].text for n in encoded], view, snapshot, k, options)
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
        ranker: Ranker | None,
    ) -> ImageHits:
        """Return the k best images of ``snapshot``, which is of ``view``, for each image together
        with the text of its number: see ``Index.search_composed``. ``ranker``: of the rows of
        ``view``."""
        if len(images) != len(texts):
            raise IndexingError(f"{len(texts):,} texts for {len(images):,} images")
        refuse_bound(options)
        queries = self._read_encoded(texts, view)
        decoder, parts = self._networks.decoder, []
        for features in self._networks.read_composed(images, [query.text for query in queries]):
            hits = engine.search(decoder, features, snapshot, k, options, ranker)
            unread = torch.full_like(hits.untaught, -torch.inf)  # fitted to pictures alone
            parts.append(ImageHits.of(replace(hits, untaught=unread), view))
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

    def _search_both(
        self, texts: list[str], view: View, snapshot: Snapshot, k: int, options: Options
    ) -> list[ImageHits]:
        """Return the images whose codes the retriever predicts from texts, and those whose own
        texts match, in batches; nothing was fitted that says how probable they are."""
        parts, first = [], 0
        for features in self._networks.read_texts(texts):
            asked = texts[first : first + len(features.embedding)]
            matches = self._match_all(asked, view, snapshot, max(k, options.candidates), options)
            hits = engine.search(
                self._networks.decoder, features, snapshot, k, options, matches=matches
            )
            parts.append(ImageHits.of(hits, view))
            first += len(asked)
        return parts

    def _match_all(
        self, texts: list[str], view: View, snapshot: Snapshot, most: int, options: Options
    ) -> Matches:
        """Return at most ``most`` images that match each of several texts."""
        found = [self._find_matches(text, view, snapshot, most, options) for text in texts]
        rows, scores = (
            pad_sequence([*part], batch_first=True) for part in zip(*found, strict=True)
        )
        rows = rows.masked_fill(scores <= 0, -1)
        blank = (0, 1)  # a column that no text matches, since there may be no other
        return Matches(F.pad(rows, blank, value=-1), F.pad(scores.float(), blank))

    def _match(
        self, text: str, view: View, snapshot: Snapshot, k: int, options: Options
    ) -> ImageHits:
        """Return the images that have one or several words of a text in their id or text columns,
        best match first."""
        most = max(k, options.candidates)
        rows, scores = self._find_matches(text, view, snapshot, most, options)
        return ImageHits.of(engine.cut_ranked(rows, scores, snapshot, k, options), view)

    def _find_matches(
        self, text: str, view: View, snapshot: Snapshot, most: int, options: Options
    ) -> tuple[Tensor, Tensor]:
        """Return at most ``most`` rows (n,) of ``snapshot`` that match a text, best first, and how
        well (n,)."""
        is_filtered = options.allow is not None or options.words is not None
        rows, scores = self._word_search.rank_any(view, text, None if is_filtered else most)
        device = snapshot.codebooks.device
        numbers, matches = torch.from_numpy(rows).to(device), torch.from_numpy(scores).to(device)
        allowed = torch.cat(snapshot.alive)[numbers]
        return numbers[allowed][:most], matches[allowed][:most]
