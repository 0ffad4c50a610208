"""Hits of a search, by id, and explanations of why an image is or is not one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.index import notebook
from irgen.index.text_query import TextQuery
from irgen.index.view import View
from irgen.search import beam, engine, rank
from irgen.search.decoder import Decoder
from irgen.search.engine import QueryFeatures

NUMBERS = ("scores", "cosine", "log_probability", "probability", "same_label", "by_embedding")
ARRAYS = ("ids", *NUMBERS, "untaught")  # of ``ImageHits``


@dataclass(frozen=True)
class ImageHits:
    """Best k images of each query, best first; arrays are (Q, k).

    ``ids`` str, None where there are fewer than k. float32, −inf there: ``scores``, by which images
    are sorted; ``cosine`` of the tuned embeddings; ``log_probability`` of the image's code under
    the retriever; ``probability`` of the code among those that take part in the search;
    ``same_label``, the calibrated probability that the image has the query's label, −inf throughout
    if the index has no calibration. ``by_embedding`` bool: the query's embedding led to the
    image, not a code that the retriever predicted, so it has no (log-)probability. ``untaught``
    (Q,) float32: the probability that the query's label is none of those that were taught; −inf
    where labels do not rank.

    ``texts``: how each query in words was read; empty for queries without. What full-text search
    found has a score alone (BM25).

    ``view``: the images that were searched; a notebook shows their pictures.
    """

    ids: np.ndarray
    scores: np.ndarray
    cosine: np.ndarray
    log_probability: np.ndarray
    probability: np.ndarray
    same_label: np.ndarray
    by_embedding: np.ndarray
    untaught: np.ndarray
    view: View = field(repr=False, compare=False)
    texts: tuple[TextQuery, ...] = ()

    def __len__(self) -> int:
        """Q."""
        return len(self.ids)

    @classmethod
    def of(cls, hits: engine.Hits, view: View, same_label: Tensor | None = None) -> "ImageHits":
        """Return hits in ``view`` with ids instead of rows. ``same_label`` (Q, k); None: nothing
        says how probable it is."""
        if same_label is None:
            same_label = torch.full_like(hits.scores, -torch.inf)
        rows = hits.rows.cpu().numpy()
        ids = np.full(rows.shape, None, dtype=object)
        ids[rows >= 0] = view.ids(rows[rows >= 0])
        probability = hits.normalised_log_prob.exp()
        probability = probability.masked_fill(hits.normalised_log_prob == -np.inf, -np.inf)
        columns = {
            "scores": hits.scores,
            "cosine": hits.cosine,
            "log_probability": hits.log_probability,
            "probability": probability,
            "same_label": same_label,
            "by_embedding": hits.by_embedding,
            "untaught": hits.untaught,
        }
        arrays: dict[str, Any] = {name: column.cpu().numpy() for name, column in columns.items()}
        return cls(ids=ids, **arrays, view=view)

    @classmethod
    def join(cls, parts: list["ImageHits"], k: int, view: View) -> "ImageHits":
        """Return the hits in ``view`` of several batches of queries, one after the other."""
        if not parts:
            types = {"ids": object, "by_embedding": bool}
            empty: dict[str, Any] = {
                name: np.empty((0, k), types.get(name, np.float32)) for name in ARRAYS
            }
            return cls(**empty | {"untaught": np.empty(0, np.float32)}, view=view)
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS
        }
        return cls(**arrays, view=view)

    def first(self, count: int) -> "ImageHits":
        """Return the hits of the first ``count`` queries."""
        return self.take(range(count))

    def take(self, queries: Sequence[int]) -> "ImageHits":
        """Return the hits of some queries, in the order of their numbers."""
        arrays = {name: getattr(self, name)[np.asarray(queries, np.int64)] for name in ARRAYS}
        texts = tuple(self.texts[number] for number in queries) if self.texts else ()
        return replace(self, **arrays, texts=texts)

    def list_untaught(self) -> list[float | None]:
        """Return ``untaught`` of each query, None where it is −inf."""
        return [value if isfinite(value) else None for value in self.untaught.tolist()]

    def _repr_html_(self) -> str:
        """Show the hits in a notebook, with pictures."""
        return notebook.show_hits(self.view, self.table(), len(self))

    def table(self) -> pl.DataFrame:
        """Return one row per hit: query (from 0), rank (from 1), id, and the numbers, null where
        they are not finite."""
        query, rank = np.nonzero(self.ids != None)  # noqa: E711
        columns = {name: getattr(self, name)[query, rank] for name in NUMBERS}
        table = pl.DataFrame(
            {"query": query, "rank": rank + 1, "id": self.ids[query, rank].tolist(), **columns},
            schema_overrides={"id": pl.String, "by_embedding": pl.Boolean},
        ).rename({"scores": "score"})
        floats = pl.selectors.float()
        return table.with_columns(pl.when(floats.is_finite()).then(floats))


@dataclass(frozen=True)
class Explanation:
    """One image as a hit of one query.

    ``code`` M numbers; ``log_probabilities`` of each of them after those before it under the
    retriever, ``normalised_log_probs`` the same among the codes that lead to an image: both natural
    logarithms. ``images_with_code``: number of images in the index with this code. ``cosine`` of
    the tuned embeddings; ``trained``: the retriever was trained on the image.
    """

    id: str
    code: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    normalised_log_probs: tuple[float, ...]
    images_with_code: int
    cosine: float
    trained: bool

    @property
    def log_probability(self) -> float:
        """Return the log-probability of the whole code."""
        return sum(self.log_probabilities)


@torch.inference_mode()
def explain(
    decoder: Decoder, query: QueryFeatures, view: View, rows: np.ndarray
) -> list[Explanation]:
    """Explain rows (n,) of ``view``, which must be alive, as hits of the one ``query``."""
    if not len(rows):
        return []
    snapshot = view.snapshot.to(query.embedding.device)
    numbers = torch.from_numpy(rows)[None].to(query.embedding.device)  # (1, n)
    codes = snapshot.gather(numbers, "codes").long()  # (1, n, M)
    parts = [part.live for part in snapshot.live_parts(fresh=False)]
    state = decoder.start(query.summary, query.tokens)
    log_probs, normalised = beam.score_codes(state, parts, codes)
    leaves = zip(parts, beam.find_leaves(parts, codes), strict=True)
    ranges = [part.group_ranges(nodes) for part, nodes in leaves]
    group_sizes = torch.stack([end - first for first, end in ranges]).sum(0)
    cosines = rank.cosine(numbers, query.embedding, snapshot)
    trained = snapshot.gather(numbers, "trained")
    columns = (codes, log_probs, normalised, group_sizes, cosines, trained)
    values = zip(view.ids(rows), *(column[0].tolist() for column in columns), strict=True)
    return [
        Explanation(name, tuple(code), tuple(own), tuple(normal), size, cosine, is_trained)
        for name, code, own, normal, size, cosine, is_trained in values
    ]
