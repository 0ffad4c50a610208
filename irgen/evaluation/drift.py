"""Measure how images added after training differ from the training images.

The figures come from codes, their residuals, labels and answers to queries. "New" images joined the
database after training; "before" is the database without them. ``drift_verdict.py`` judges the
figures.
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
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabelledCodes:
    """Encoded images: ``codes`` (N, M), ``residuals`` (N, M) of :func:`compute_residuals`,
    ``labels`` (N,) int64, equal for equal labels; −1 is none."""

    codes: Codes
    residuals: Values
    labels: Labels

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, mask: Flags) -> "LabelledCodes":
        """Return the images where ``mask`` (N,) is true."""
        return LabelledCodes(
            codes=self.codes[mask], residuals=self.residuals[mask], labels=self.labels[mask]
        )

    def append(self, others: "LabelledCodes") -> "LabelledCodes":
        """Return these images followed by the others."""
        return LabelledCodes(
            codes=np.concatenate([self.codes, others.codes]),
            residuals=np.concatenate([self.residuals, others.residuals]),
            labels=np.concatenate([self.labels, others.labels]),
        )


def compute_residuals(embeddings: Values, codes: Codes, codebooks: Values) -> Values:
    """Return the share of an embedding that its codes lose, by level: ‖f − f^≤m‖² / ‖f‖², (N, M).

    ``embeddings`` (N, D), ``codes`` (N, M), ``codebooks`` (M, L, D). 0: nothing is lost.

    >>> books = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.5], [0.0, 0.0]]])
    >>> compute_residuals(np.array([[1.0, 1.0]]), np.array([[0, 0]]), books).tolist()
    [[0.5, 0.125]]
    """
    shares = np.empty(codes.shape, dtype=np.float64)
    for start in range(0, len(codes), BLOCK):
        rows = slice(start, start + BLOCK)
        rest = np.array(embeddings[rows], dtype=np.float32)
        whole = np.maximum(np.square(rest, dtype=np.float64).sum(axis=1), 1e-12)
        for level in range(codes.shape[1]):
            rest -= codebooks[level][codes[rows, level]]
            shares[rows, level] = np.square(rest, dtype=np.float64).sum(axis=1) / whole
    return shares


def number_prefixes(codes: Codes) -> npt.NDArray[np.int64]:
    """Number the prefixes of codes (N, M): within a level, equal numbers are equal prefixes.

    >>> number_prefixes(np.array([[5, 1], [5, 2], [3, 1], [5, 1]])).tolist()
    [[1, 1], [1, 2], [0, 0], [1, 1]]
    """
    numbers = np.empty(codes.shape, dtype=np.int64)
    before = np.zeros(len(codes), dtype=np.int64)
    size = int(codes.max(initial=0)) + 1
    for level in range(codes.shape[1]):
        keys = before * size + codes[:, level]
        before = numbers[:, level] = np.unique(keys, return_inverse=True)[1].reshape(-1)
    return numbers


def mark_unseen_codes(new: Codes, trained: Codes) -> Flags:
    """Mark the codes of new images that no training image has at that level: (n, M) bool.

    >>> mark_unseen_codes(np.array([[1, 7], [2, 0]]), np.array([[1, 0], [1, 2]])).tolist()
    [[False, True], [True, False]]
    """
    levels = range(new.shape[1])
    return np.stack([~np.isin(new[:, m], trained[:, m]) for m in levels], axis=1)


def mark_unseen_prefixes(new: Codes, trained: Codes) -> Flags:
    """Mark the prefixes of new images that no training image's code begins with: (n, M) bool. If a
    prefix is unseen, the longer ones are too.

    >>> new = np.array([[1, 0], [2, 0], [1, 9]])
    >>> mark_unseen_prefixes(new, np.array([[1, 0], [1, 2]])).tolist()
    [[False, False], [True, True], [False, True]]
    """
    numbers = number_prefixes(np.concatenate([trained, new]))
    return mark_unseen_codes(numbers[len(trained) :], numbers[: len(trained)])


def count_code_group(codes: Codes) -> npt.NDArray[np.int64]:
    """Return the size of each image's code group, (N,): the images with its code, itself included.

    >>> count_code_group(np.array([[1, 2], [1, 3], [1, 2]])).tolist()
    [2, 1, 2]
    """
    whole = number_prefixes(codes)[:, -1]
    return np.bincount(whole)[whole]


def mark_collisions(images: LabelledCodes, among: LabelledCodes) -> Flags:
    """Mark the images (n,) that share their code with an image of another label in ``among``.

    >>> rest, labels = np.zeros((2, 1)), np.array([0, 1])
    >>> base = LabelledCodes(codes=np.array([[1], [2]]), residuals=rest, labels=labels)
    >>> same = np.array([0, 0])
    >>> others = LabelledCodes(codes=np.array([[2], [3]]), residuals=rest, labels=same)
    >>> mark_collisions(others, base).tolist()
    [True, False]
    """
    whole = number_prefixes(np.concatenate([among.codes, images.codes]))[:, -1]
    labels = np.unique(np.concatenate([among.labels, images.labels]), return_inverse=True)[1]
    groups, image_labels = whole[: len(among)], labels[len(among) :]
    low = np.full(whole.max(initial=0) + 1, len(labels))  # lowest label of each group in `among`
    high = np.full(len(low), -1)  # and highest
    np.minimum.at(low, groups, labels[: len(among)])
    np.maximum.at(high, groups, labels[: len(among)])
    group = whole[len(among) :]
    return (high[group] >= 0) & ((low[group] != image_labels) | (high[group] != image_labels))


def measure_drift(
    trained: LabelledCodes, held_out: LabelledCodes, database: LabelledCodes, new: Flags
) -> dict[str, float]:
    """Return the figures of codes, and of labels if there are any.

    ``held_out``: images of before training, on which nothing was trained: they show what is usual.
    ``new`` (N,) marks the database's new images; without any, their figures are missing.
    """
    before, fresh = database.take(~new), database.take(new)
    figures: dict[str, float] = {
        "images/trained": len(trained),
        "images/held_out": len(held_out),
        "images/database": len(database),
        "images/new": len(fresh),
        **_mean_levels("residual/trained", trained.residuals),
        **_measure_groups("now", database),
        **_measure_groups("before", before),
        **_compare(trained, held_out, "held_out"),
        **_compare(trained, fresh, "new"),
    }
    if len(fresh) and (trained.labels >= 0).any():
        figures["unseen/labels"] = float((~np.isin(fresh.labels, trained.labels)).mean())
    return figures


def _compare(trained: LabelledCodes, images: LabelledCodes, name: str) -> dict[str, float]:
    """Return the figures of images that tell how they differ from the training images."""
    if not len(images):
        return {}
    prefixes = mark_unseen_prefixes(images.codes, trained.codes)
    return {
        **_mean_levels(f"residual/{name}", images.residuals),
        **_mean_levels(f"unseen/codes/{name}", mark_unseen_codes(images.codes, trained.codes)),
        **_mean_levels(f"unseen/prefixes/{name}", prefixes),
        f"collisions/{name}": float(mark_collisions(images, trained).mean()),
    }


def _mean_levels(name: str, values: Values | Flags) -> dict[str, float]:
    """Return the mean of values (n, M) over images, level by level."""
    means = values.mean(axis=0)
    return {f"{name}/level_{m}": float(mean) for m, mean in enumerate(means, start=1)}


def _measure_groups(when: str, images: LabelledCodes) -> dict[str, float]:
    """Return the sizes of images' code groups; the mean is that of a random image's group."""
    if not len(images):
        return {}
    sizes = count_code_group(images.codes)
    return {
        f"code_groups/{when}/mean": float(sizes.mean()),
        f"code_groups/{when}/p99": float(np.percentile(sizes, 99, method="inverted_cdf")),
        f"code_groups/{when}/max": float(sizes.max()),
        f"collisions/{when}": float(mark_collisions(images, images).mean()),
    }


def measure_quality(
    hits: metrics.Hits, positives: metrics.Counts, new: Flags, cutoffs: Iterable[int]
) -> dict[str, float]:
    """Return the quality of answers to old and ``new`` (Q,) queries: ``quality/old/precision/10``
    and so on.

    Precision, precision_capped and hit at every cut-off are means over the queries that have a
    positive; ``quality/old/queries`` is their number. A group without any has only that 0.
    """
    figures: dict[str, float] = {}
    for name, group in (("old", ~new), ("new", new)):
        group = group & (positives > 0)
        figures[f"quality/{name}/queries"] = int(group.sum())
        if not group.any():
            continue
        for k in cutoffs:
            for metric in ("precision", "precision_capped", "hit"):
                values = metrics.AT_CUTOFF[metric](hits[group], positives[group], k)
                figures[f"quality/{name}/{metric}/{k}"] = float(values.mean())
    return figures
