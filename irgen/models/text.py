"""Text encoder: reads a query in words into what an image encoder makes of a picture."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.models.decoder import Shape
from irgen.params import Texts as Settings

VERSION = 1  # raise when a text encoder with equal weights gives other embeddings
PAD = 0  # number of no sub-word
LENGTHS = (3, 4, 5)  # letters of a sub-word that is no whole word
MOST_WORDS = 64  # of a text; what follows is not read
WORD = re.compile(r"[^\W_]+")


def split_words(text: str) -> list[str]:
    """Return the words of a text, without capitals and accents; signs between them are dropped.

    >>> split_words("Crème brûlée: Golden-Delicious, 500g")
    ['creme', 'brulee', 'golden', 'delicious', '500g']
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    return WORD.findall("".join(sign for sign in plain if not unicodedata.combining(sign)))


def cut_word(word: str) -> list[str]:
    """Return the sub-words of a word: the whole of it, and its neighbouring letters; < and > mark
    its ends (Bojanowski et al. 2017).

    >>> cut_word("egg")
    ['<egg>', '<eg', 'egg', 'gg>', '<egg', 'egg>']
    """
    marked = f"<{word}>"
    parts = [
        marked[start : start + length]
        for length in LENGTHS
        for start in range(len(marked) - length + 1)
    ]
    return list(dict.fromkeys([marked, *parts]))


class TextEncoder(nn.Module):
    """A vector for each sub-word: those of a word add up to the word's, those of its words to the
    text's, whose direction is compared with the embeddings of images.

    The order of words does not count here; the retriever's decoder reads them one by one.
    ``subwords``: those that have a vector. ``words``: those of the texts that it was trained on.
    ``width``: D of the images' embeddings.
    """

    def __init__(
        self,
        settings: Settings,
        subwords: Sequence[str],
        words: Iterable[str],
        width: int,
    ):
        super().__init__()
        self.settings, self.subwords, self.words = settings, list(subwords), frozenset(words)
        self.numbers = {subword: number for number, subword in enumerate(self.subwords, 1)}
        self.table = nn.Embedding(len(self.subwords) + 1, width, padding_idx=PAD)
        self.centre = nn.Parameter(torch.randn(width))  # of all images: what no word says

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Sub-words (B, n, g) int64 of n words, filled up with PAD → unit embeddings (B, D) and the
        words' vectors (B, n, D), 0 where there is no word."""
        states = self.table(numbers).sum(2)
        return F.normalize(self.centre + states.sum(1), dim=-1), states

    def number(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """Return the sub-words (B, n, g) int64 of texts, each given as its words."""
        rows = [[self._number_word(word) for word in words[:MOST_WORDS]] for words in texts]
        words = max((len(row) for row in rows), default=0)
        length = max((len(word) for row in rows for word in row), default=0)
        numbers = torch.full((len(rows), max(words, 1), max(length, 1)), PAD)
        for line, row in zip(numbers, rows, strict=True):
            for place, word in zip(line, row, strict=False):
                place[: len(word)] = torch.tensor(word, dtype=torch.int64)
        return numbers

    def _number_word(self, word: str) -> list[int]:
        return [self.numbers[part] for part in cut_word(word) if part in self.numbers]

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that no training text has, in order, each once."""
        return [word for word in dict.fromkeys(split_words(text)) if word not in self.words]


def shape_memory(embeddings: Tensor, states: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return embeddings (B, D) and words' vectors (B, n, D) of texts as a decoder's summary (B, S)
    and tokens (B, P, T): zeros fill up what is missing, what is too wide is cut, and words after
    the P-th share the first ones' tokens."""
    states = _fit(states, shape.token_width)  # (B, n, T)
    missing = -states.shape[1] % shape.token_count
    rounds = F.pad(states, (0, 0, 0, missing)).unflatten(1, (-1, shape.token_count))
    return _fit(embeddings, shape.summary_width), rounds.sum(1)


def _fit(values: Tensor, width: int) -> Tensor:
    """Cut the last dimension to ``width``, or fill it up with zeros."""
    return F.pad(values, (0, width - values.shape[-1]))


def compose(picture: Tensor, words: Tensor) -> Tensor:
    """Return what a decoder reads for a picture together with words: the mean of their summaries
    (B, S), or of their tokens (B, P, T). The decoder norms both, so no words change nothing."""
    return (picture + words) / 2
