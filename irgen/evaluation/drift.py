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

BLOCK = 1 << 16  # images whose residuals are taken at once
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

    def joined(self, others: "Coded") -> "Coded":
        """These images and then the others."""
        return Coded(
            codes=np.concatenate([self.codes, others.codes]),
            residuals=np.concatenate([self.residuals, others.residuals]),
            labels=np.concatenate([self.labels, others.labels]),
        )


def residuals(embeddings: Values, codes: Codes, codebooks: Values) -> Values:
    """What codes leave over of embeddings, level by level: ‖f − f^≤m‖² / ‖f‖², (N, M) float64.

    ``embeddings`` (N, D), ``codes`` (N, M), ``codebooks`` (M, L, D). 0: nothing is left.

    >>> books = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.5], [0.0, 0.0]]])
    >>> residuals(np.array([[1.0, 1.0]]), np.array([[0, 0]]), books).tolist()
    [[0.5, 0.125]]
    """
    found = np.empty(codes.shape, dtype=np.float64)
    for start in range(0, len(codes), BLOCK):
        rows = slice(start, start + BLOCK)
        left = np.array(embeddings[rows], dtype=np.float32)
        whole = np.maximum(np.square(left, dtype=np.float64).sum(axis=1), 1e-12)
        for level in range(codes.shape[1]):
            left -= codebooks[level][codes[rows, level]]
            found[rows, level] = np.square(left, dtype=np.float64).sum(axis=1) / whole
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


def buckets(codes: Codes) -> npt.NDArray[np.int64]:
    """How many images have each image's whole code, itself counted: (N,).

    >>> buckets(np.array([[1, 2], [1, 3], [1, 2]])).tolist()
    [2, 1, 2]
    """
    whole = prefixes(codes)[:, -1]
    return np.bincount(whole)[whole]


def collides(images: Coded, among: Coded) -> Flags:
    """Whether each of the images (n,) has the whole code of one ``among`` those of another label.

    >>> left, labels = np.zeros((2, 1)), np.array(["a", "b"])
    >>> known = Coded(codes=np.array([[1], [2]]), residuals=left, labels=labels)
    >>> others = Coded(codes=np.array([[2], [3]]), residuals=left, labels=np.array(["a", "a"]))
    >>> collides(others, known).tolist()
    [True, False]
    """
    whole = prefixes(np.concatenate([among.codes, images.codes]))[:, -1]
    labels = np.unique(np.concatenate([among.labels, images.labels]), return_inverse=True)[1]
    there, own = whole[: len(among)], labels[len(among) :]
    low = np.full(whole.max(initial=0) + 1, len(labels))  # of each bucket, the least label among
    high = np.full(len(low), -1)  # and the greatest
    np.minimum.at(low, there, labels[: len(among)])
    np.maximum.at(high, there, labels[: len(among)])
    mine = whole[len(among) :]
    return (high[mine] >= 0) & ((low[mine] != own) | (high[mine] != own))


def measure(trained: Coded, held_out: Coded, database: Coded, new: Flags) -> dict[str, float]:
    """Every figure of codes and labels that can be told. ``held_out``: images of the time of the
    training that nothing was trained on; what they have is no drift. ``new`` (N,) marks the
    database's new images; without one there are counts, buckets and what is known of the others."""
    before, fresh = database.take(~new), database.take(new)
    found: dict[str, float] = {
        "images/trained": len(trained),
        "images/held_out": len(held_out),
        "images/database": len(database),
        "images/new": len(fresh),
        **_levels("residual/trained", trained.residuals),
        **_buckets("now", database),
        **_buckets("before", before),
        **_against(trained, held_out, "held_out"),
        **_against(trained, fresh, "new"),
    }
    if len(fresh):
        found["unseen/labels"] = float((~np.isin(fresh.labels, trained.labels)).mean())
    return found


def _against(trained: Coded, images: Coded, name: str) -> dict[str, float]:
    """What images have that training's have not."""
    if not len(images):
        return {}
    return {
        **_levels(f"residual/{name}", images.residuals),
        **_levels(f"unseen/entries/{name}", unseen_entries(images.codes, trained.codes)),
        **_levels(f"unseen/prefixes/{name}", unseen_prefixes(images.codes, trained.codes)),
        f"collisions/{name}": float(collides(images, trained).mean()),
    }


def _levels(name: str, values: Values | Flags) -> dict[str, float]:
    """The mean over images of values (n, M)."""
    means = values.mean(axis=0)
    return {f"{name}/level_{m}": float(mean) for m, mean in enumerate(means, start=1)}


def _buckets(when: str, images: Coded) -> dict[str, float]:
    """Sizes are over images, not buckets: the mean is the bucket that a random image lies in."""
    if not len(images):
        return {}
    sizes = buckets(images.codes)
    return {
        f"buckets/{when}/mean": float(sizes.mean()),
        f"buckets/{when}/p99": float(np.percentile(sizes, 99, method="inverted_cdf")),
        f"buckets/{when}/max": float(sizes.max()),
        f"collisions/{when}": float(collides(images, images).mean()),
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
