"""Why an image is or is not an answer to a query: its code, level by level."""

from dataclasses import dataclass

import numpy as np
import torch

from irgen.index.view import View
from irgen.search import beam, rank
from irgen.search.decoder import Decoder
from irgen.search.engine import QueryFeatures


@dataclass(frozen=True)
class Explanation:
    """One image as an answer to one query.

    ``code`` M entries; ``log_probabilities`` of each entry after those before it under the
    retriever, ``shares`` the same among the entries that lead to an image: both natural logarithms.
    ``bucket``: how many images of the index share the code. ``cosine`` of the tuned embeddings;
    ``trained``: whether the retriever was trained on the image.
    """

    id: str
    code: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    shares: tuple[float, ...]
    bucket: int
    cosine: float
    trained: bool

    @property
    def log_probability(self) -> float:
        """Of the whole code."""
        return sum(self.log_probabilities)


@torch.inference_mode()
def explain(
    decoder: Decoder, read: QueryFeatures, view: View, rows: np.ndarray
) -> list[Explanation]:
    """Explanations of rows (n,) that are alive, for the one query in ``read``."""
    if not len(rows):
        return []
    snapshot = view.snapshot.to(read.embedding.device)
    numbers = torch.from_numpy(rows)[None].to(read.embedding.device)  # (1, n)
    codes = snapshot.gather(numbers, "codes").long()  # (1, n, M)
    parts = [part.live for part in snapshot.parts(fresh=False)]
    gains, shares = beam.score_codes(decoder.start(read.summary, read.tokens), parts, codes)
    leaves = zip(parts, beam.find_leaves(parts, codes), strict=True)
    ranges = [part.group_ranges(nodes) for part, nodes in leaves]
    buckets = torch.stack([end - first for first, end in ranges]).sum(0)
    cosines = rank.cosine(numbers, read.embedding, snapshot)
    trained = snapshot.gather(numbers, "trained")
    columns = (codes, gains, shares, buckets, cosines, trained)
    plain = zip(view.items.ids(rows), *(c[0].tolist() for c in columns), strict=True)
    return [
        Explanation(name, tuple(code), tuple(gain), tuple(share), bucket, cosine, known)
        for name, code, gain, share, bucket, cosine, known in plain
    ]
