"""How images that came after the training differ from those it knew, in figures.

Everything is counted on what the pipeline has anyway: codes, what their reconstructions leave over,
labels, and the answers to queries. "New" images joined the database after the training; "before" is
the database without them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irgen.evaluation import metrics

Codes = npt.NDArray[np.integer]
Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Images as the tokenizer made them: ``codes`` (N, M), ``residuals`` (N, M) as of
    :func:`residuals`, ``labels`` (N,) str."""

    codes: Codes
    residuals: Values
    labels: Labels

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, which: Flags) -> "Coded":
        """Some of the images."""
        return Coded(
            codes=self.codes[which], residuals=self.residuals[which], labels=self.labels[which]
        )


def residuals(embeddings: Values, codes: Codes, codebooks: Values) -> Values:
    """What codes leave over of embeddings, level by level: ‖f − f^≤m‖² / ‖f‖², (N, M) float64.

    ``embeddings`` (N, D), ``codes`` (N, M), ``codebooks`` (M, L, D). 0: nothing is left.

    >>> books = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.5], [0.0, 0.0]]])
    >>> residuals(np.array([[1.0, 1.0]]), np.array([[0, 0]]), books).tolist()
    [[0.5, 0.125]]
    """
    left = np.array(embeddings, dtype=np.float32)
    whole = np.square(left, dtype=np.float64).sum(axis=1)
    found = np.empty(codes.shape, dtype=np.float64)
    for level in range(codes.shape[1]):
        left -= codebooks[level][codes[:, level]]
        found[:, level] = np.square(left, dtype=np.float64).sum(axis=1) / np.maximum(whole, 1e-12)
    return found


def prefixes(codes: Codes) -> npt.NDArray[np.int64]:
    """A number for each prefix (N, M) int64: within a level, equal numbers are equal prefixes.

    >>> prefixes(np.array([[5, 1], [5, 2], [3, 1], [5, 1]])).tolist()
    [[1, 1], [1, 2], [0, 0], [1, 1]]
    """
    found = np.empty(codes.shape, dtype=np.int64)
    before = np.zeros(len(codes), dtype=np.int64)
    size = int(codes.max(initial=0)) + 1
    for level in range(codes.shape[1]):
        keys = before * size + codes[:, level]
        before = found[:, level] = np.unique(keys, return_inverse=True)[1].reshape(-1)
    return found


def unseen_entries(new: Codes, trained: Codes) -> Flags:
    """Whether each new image has, at each level, an entry that no training image has there: (n, M).

    >>> unseen_entries(np.array([[1, 7], [2, 0]]), np.array([[1, 0], [1, 2]])).tolist()
    [[False, True], [True, False]]
    """
    levels = range(new.shape[1])
    return np.stack([~np.isin(new[:, m], trained[:, m]) for m in levels], axis=1)


def unseen_prefixes(new: Codes, trained: Codes) -> Flags:
    """Whether the first m codes of each new image begin no training image's code, m = 1 … M: (n, M)
    bool. Once a prefix is unseen, the longer ones are too.

    >>> unseen_prefixes(np.array([[1, 0], [2, 0], [1, 9]]), np.array([[1, 0], [1, 2]])).tolist()
    [[False, False], [True, True], [False, True]]
    """
    numbers = prefixes(np.concatenate([trained, new]))
    return unseen_entries(numbers[len(trained) :], numbers[: len(trained)])


def expected_unseen(trained: Codes) -> Values:
    """How likely one more image of the same kind has an unseen prefix, m = 1 … M: (M,) float64.

    Good and Turing's estimate: the share of training images that are alone with their prefix.

    >>> expected_unseen(np.array([[1, 0], [1, 2], [1, 2], [3, 0]])).tolist()
    [0.25, 0.5]
    """
    numbers = prefixes(trained)
    counts = [np.bincount(numbers[:, m]) for m in range(trained.shape[1])]
    return np.array([(each == 1).sum() / len(trained) for each in counts])


def buckets(codes: Codes) -> npt.NDArray[np.int64]:
    """How many images have each image's whole code, itself counted: (N,).

    >>> buckets(np.array([[1, 2], [1, 3], [1, 2]])).tolist()
    [2, 1, 2]
    """
    whole = prefixes(codes)[:, -1]
    return np.bincount(whole)[whole]


def collides(codes: Codes, labels: Labels) -> Flags:
    """Whether each image shares its whole code with an image of another label: (N,).

    >>> collides(np.array([[1], [1], [2], [2]]), np.array(["a", "b", "a", "a"])).tolist()
    [True, True, False, False]
    """
    whole = prefixes(codes)[:, -1]
    _, kinds = np.unique(labels, return_inverse=True)
    pairs = np.unique(np.stack([whole, kinds.reshape(-1)]), axis=1)[0]  # a bucket a label
    return (np.bincount(pairs) > 1)[whole]


def measure(trained: Coded, database: Coded, new: Flags) -> dict[str, float]:
    """Every figure of codes and labels that can be told; ``new`` (N,) marks the database's new
    images. Without a new one there are counts and buckets alone."""
    before, fresh = database.take(~new), database.take(new)
    found: dict[str, float] = {
        "images/trained": len(trained),
        "images/database": len(database),
        "images/new": len(fresh),
        **_buckets("now", database),
        **_buckets("before", before),
        **_levels("residual/trained", trained.residuals.mean(axis=0)),
    }
    if not len(fresh):
        return found
    found |= _levels("residual/new", fresh.residuals.mean(axis=0))
    found |= _levels("unseen/entries", unseen_entries(fresh.codes, trained.codes).mean(axis=0))
    found |= _levels("unseen/prefixes", unseen_prefixes(fresh.codes, trained.codes).mean(axis=0))
    found |= _levels("unseen/prefixes_expected", expected_unseen(trained.codes))
    unknown = ~np.isin(fresh.labels, trained.labels)
    found["unseen/labels"] = float(unknown.mean())
    found["collisions/new"] = float(collides(database.codes, database.labels)[new].mean())
    return found


def _levels(name: str, values: Iterable[float]) -> dict[str, float]:
    return {f"{name}/level_{m}": float(value) for m, value in enumerate(values, start=1)}


def _buckets(when: str, images: Coded) -> dict[str, float]:
    """Sizes are over images, not buckets: the mean is the bucket a random image lies in."""
    if not len(images):
        return {}
    sizes = buckets(images.codes)
    return {
        f"buckets/{when}/mean": float(sizes.mean()),
        f"buckets/{when}/p99": float(np.percentile(sizes, 99, method="inverted_cdf")),
        f"buckets/{when}/max": float(sizes.max()),
        f"collisions/{when}": float(collides(images.codes, images.labels).mean()),
    }


def quality(
    hits: metrics.Hits, positives: metrics.Counts, new: Flags, cutoffs: Iterable[int]
) -> dict[str, float]:
    """How well the old and the ``new`` (Q,) queries are answered: ``quality/old/precision/10`` and
    so on, with precision, precision_capped and hit at every cut-off, over the queries that anything
    can answer, of which ``quality/old/queries`` are the number. A group without one has that 0
    alone."""
    found: dict[str, float] = {}
    for name, group in (("old", ~new), ("new", new)):
        group = group & (positives > 0)
        found[f"quality/{name}/queries"] = int(group.sum())
        if not group.any():
            continue
        for k in cutoffs:
            for kind in ("precision", "precision_capped", "hit"):
                values = metrics.AT_CUTOFF[kind](hits[group], positives[group], k)
                found[f"quality/{name}/{kind}/{k}"] = float(values.mean())
    return found
