"""Texts of training images: draw wordings of them, as people might ask for an image."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from irgen.models.text import split_words

HAS_WORD = r"[\p{L}\p{N}]"
LONGEST = 16  # words of a wording: people ask in few


@dataclass(frozen=True)
class Wording:
    """A query in ``words``, made of the texts with these numbers."""

    texts: list[int]
    words: list[str]


@dataclass(frozen=True)
class ImageTexts:
    """Distinct ``texts`` of N images: those of image i are ``numbers[offsets[i]:offsets[i + 1]]``,
    none for an image without."""

    texts: pl.Series
    numbers: np.ndarray  # int64
    offsets: np.ndarray  # (N + 1,) int64

    @classmethod
    def build(cls, ids: pl.Series, table: pl.DataFrame) -> "ImageTexts":
        """Return the texts of images ``ids`` (N,) as ``table`` (id, texts) has them. A text without
        a word is none."""
        rows = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
        pairs = rows.join(table, on="id", maintain_order="left").explode("texts")
        pairs = pairs.filter(pl.col("texts").str.contains(HAS_WORD))
        texts = pairs["texts"].unique(maintain_order=True)
        numbered = pl.DataFrame({"texts": texts, "number": np.arange(len(texts))})
        pairs = pairs.join(numbered, on="texts", maintain_order="left")
        offsets = np.searchsorted(pairs["row"].to_numpy(), np.arange(len(ids) + 1))
        return cls(texts, pairs["number"].to_numpy(), offsets)

    @property
    def rows(self) -> np.ndarray:
        """Return the rows (n,) int64 of the images that have a text."""
        return np.flatnonzero(np.diff(self.offsets))

    def split(self) -> Iterator[list[str]]:
        """Yield the words of each distinct text."""
        return map(split_words, self.texts)

    def of_image(self, row: int) -> np.ndarray:
        """Return the numbers of an image's texts."""
        return self.numbers[self.offsets[row] : self.offsets[row + 1]]

    def draw(self, row: int, dropped: float, generator: np.random.Generator) -> Wording:
        """Return 1 to LONGEST neighbouring words of the texts of image ``row``, which has one; the
        texts in any order, without a share of about ``dropped`` of their words."""
        own = generator.permutation(self.of_image(row)).tolist()
        words = [(number, word) for number in own for word in split_words(self.texts[number])]
        kept = generator.random(len(words)) >= dropped
        kept[generator.integers(len(words))] = True
        words = [pair for pair, keep in zip(words, kept, strict=True) if keep]
        length = min(len(words), int(generator.integers(1, LONGEST + 1)))
        start = generator.integers(len(words) - length + 1)
        numbers, drawn = zip(*words[start : start + length], strict=True)
        return Wording(sorted(set(numbers)), list(drawn))

    def mark_fitting(self, wordings: Sequence[Wording], rows: Iterable[int]) -> np.ndarray:
        """Tell which of the images ``rows`` (B,) have all texts of each wording: (Q, B) bool."""
        own = [set(self.of_image(row)) for row in rows]
        return np.array([[texts.issuperset(w.texts) for texts in own] for w in wordings])
