"""Number the labels of an index's images, so that a search compares numbers and not names."""

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from irgen.index.rows import hash_ids
from irgen.index.view import View

LABEL = "label"


def number_labels(labels: pl.Series, taught: Sequence[str]) -> Tensor:
    """Return the kinds (n,) int64 of labels: the position among the ``taught`` ones, for another
    label a number from ``len(taught)`` on, −1 for none.

    >>> number_labels(pl.Series(["dog", "cat", None]), ["cat", "dog"]).tolist()
    [1, 0, -1]
    """
    positions = {name: number for number, name in enumerate(taught)}
    names = labels.drop_nulls().unique().cast(pl.String).to_list()
    hashes = hash_ids(names) // 2  # so that no sum is too large
    numbers = [
        positions.get(name, len(taught) + number)
        for name, number in zip(names, hashes.tolist(), strict=True)
    ]
    kinds = labels.cast(pl.String).replace_strict(names, numbers, default=-1, return_dtype=pl.Int64)
    return torch.from_numpy(kinds.fill_null(-1).to_numpy(writable=True))


def complete_kinds(kinds: Tensor, codes: Tensor, code_labels: Tensor) -> Tensor:
    """Return ``kinds`` (n,) in which an image without a label has the likeliest of its first code.
    ``codes`` (n, M); ``code_labels`` (L, T): see ``LabelScorer``."""
    likeliest = code_labels.argmax(1).to(kinds.device)
    return torch.where(kinds < 0, likeliest[codes[:, 0].long()], kinds)


class Kinds:
    """Kinds of the rows of views; those of the base are remembered until it is another."""

    def __init__(self) -> None:
        self._base: tuple[object, Tensor] | None = None

    def of(self, view: View, taught: Sequence[str], code_labels: Tensor) -> Tensor:
        """Return the kinds (rows,) int64 of the rows of ``view``, dead ones included."""
        remembered = self._base
        if remembered is None or remembered[0] is not view.base:
            kinds = _number(view.base.table, view.base.segment.codes, taught, code_labels)
            self._base = remembered = view.base, kinds
        if not len(view.added):
            return remembered[1]
        added = view.snapshot.segments[1].codes
        return torch.cat([remembered[1], _number(view.added, added, taught, code_labels)])


def _number(
    table: pl.DataFrame, codes: Tensor, taught: Sequence[str], code_labels: Tensor
) -> Tensor:
    if LABEL in table.columns:
        kinds = number_labels(table[LABEL], taught)
    else:
        kinds = torch.full((len(table),), -1)
    return complete_kinds(kinds, codes, code_labels)
