"""Number the labels of an index's images, so that a search compares numbers and not names."""

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from irgen.index.base_files import Base
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


def number_rows(
    table: pl.DataFrame, codes: Tensor, taught: Sequence[str], code_labels: Tensor
) -> Tensor:
    """Return the kinds (n,) int64 of the images of ``table``: those of their labels or,
    where there is none, of their ``codes`` (n, M). See ``complete_kinds``."""
    if LABEL in table.columns:
        kinds = number_labels(table[LABEL], taught)
    else:
        kinds = torch.full((len(table),), -1)
    return complete_kinds(kinds, codes, code_labels)


class Kinds:
    """Kinds of the rows of views, on the ``device`` of the search. Those of the last view and of
    its base are remembered."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._base: tuple[Base, Tensor] | None = None
        self._view: tuple[View, Tensor] | None = None
        self._labelled: tuple[View, Tensor] | None = None

    def of(self, view: View, taught: Sequence[str], code_labels: Tensor) -> Tensor:
        """Return the kinds (rows,) int64 of the rows of ``view``, dead ones included."""
        last = self._view
        if last is None or last[0] is not view:
            kinds = self._number_base(view.base, taught, code_labels)
            if len(view.added):
                added = view.snapshot.segments[1].codes
                new = number_rows(view.added, added, taught, code_labels)
                kinds = torch.cat([kinds, new])
            self._view = last = view, kinds.to(self.device)
        return last[1]

    def mark_labelled(self, view: View) -> Tensor:
        """Return a mask (rows,) bool of the rows of ``view`` that have a label of their own."""
        last = self._labelled
        if last is None or last[0] is not view:
            marks = torch.zeros(view.snapshot.rows, dtype=torch.bool)
            if LABEL in view.schema:
                marks = torch.from_numpy(view.table[LABEL].is_not_null().to_numpy(writable=True))
            self._labelled = last = view, marks.to(self.device)
        return last[1]

    def _number_base(self, base: Base, taught: Sequence[str], code_labels: Tensor) -> Tensor:
        last = self._base
        if last is None or last[0] is not base:
            kinds = number_rows(base.table, base.segment.codes, taught, code_labels)
            self._base = last = base, kinds
        return last[1]
