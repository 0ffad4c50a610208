"""What a search of an index gives back, by id."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from irgen.index.view import View
from irgen.search import calibration
from irgen.search.calibration import Calibration
from irgen.search.engine import Hits


@dataclass(frozen=True)
class Found:
    """The best k images of each query, best first; every array is (Q, k).

    ``ids`` str, None where fewer were found. float32, −inf there: ``scores`` is what the images are
    ordered by, the ``cosine`` of the tuned embeddings and the index's ``rerank_weight`` times what
    it has of first entries, or without re-ranking the ``log_probability`` of the image's identifier
    under the retriever or that of its first entry or label; ``probability`` is the
    identifier's probability among those that take part in the search; ``same_label`` the
    calibrated probability that the image carries the query's label, −inf throughout if the index
    has no calibration. ``dense`` bool: the image was reached by its embedding and not written by
    the retriever, so that it has no (log-)probability.
    """

    ids: np.ndarray
    scores: np.ndarray
    cosine: np.ndarray
    log_probability: np.ndarray
    probability: np.ndarray
    same_label: np.ndarray
    dense: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, hits: Hits, view: View, known: Calibration | None) -> "Found":
        """Hits by their rows in ``view`` as images by their ids."""
        rows = hits.rows.cpu().numpy()
        ids = np.full(rows.shape, None, dtype=object)
        ids[rows >= 0] = view.items.ids(rows[rows >= 0])
        nothing = hits.cosine.new_full(hits.cosine.shape, -np.inf)
        sure = nothing if known is None else calibration.apply(known, hits.cosine)
        chance = hits.normalised_log_prob
        chance = chance.exp().masked_fill(chance == -np.inf, -np.inf)
        columns = (hits.scores, hits.cosine, hits.log_probability, chance, sure, hits.by_embedding)
        return cls(ids, *(column.cpu().numpy() for column in columns))

    @classmethod
    def joined(cls, parts: list["Found"], k: int) -> "Found":
        """The answers to several batches of queries, one after the other."""
        if not parts:
            return cls(np.full((0, k), None, dtype=object), *np.empty((6, 0, k), np.float32))
        names = cls.__dataclass_fields__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def table(self) -> pl.DataFrame:
        """One row a hit: query (from 0), rank (from 1), id, and the numbers; what is missing is
        null."""
        places = np.argwhere(self.ids != None)  # noqa: E711
        query, rank = places.T if len(places) else np.empty((2, 0), np.int64)
        numbers = ("scores", "cosine", "log_probability", "probability", "same_label", "dense")
        columns = {name: getattr(self, name)[query, rank] for name in numbers}
        table = pl.DataFrame(
            {"query": query, "rank": rank + 1, "id": self.ids[query, rank].tolist(), **columns},
            schema_overrides={"id": pl.String, "dense": pl.Boolean},
        ).rename({"scores": "score"})
        floats = pl.selectors.float()
        return table.with_columns(pl.when(floats.is_finite()).then(floats))
