"""Text encoder: reads a query in words into what an image encoder makes of a picture."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer as Subwords
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.models.decoder import Shape
from irgen.params import Texts as Settings

VERSION = 1  # raise when a text encoder with equal weights gives other embeddings
PAD, START = 0, 1  # sub-word numbers: nothing, and the start of every text
SPECIAL = ("[pad]", "[start]")
MOST_SUBWORDS = 128  # of a text; what follows is not read
WORD = re.compile(r"[^\W_]+")


def split_words(text: str) -> list[str]:
    """Return the words of a text, without capitals and accents; signs between them are dropped.

    >>> split_words("Crème brûlée: Golden-Delicious, 500g")
    ['creme', 'brulee', 'golden', 'delicious', '500g']
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    return WORD.findall("".join(sign for sign in plain if not unicodedata.combining(sign)))


class TextEncoder(nn.Module):
    """A small transformer over sub-words, whose embeddings are compared with those of images.

    ``subwords``: a byte-pair encoding of words, which cuts any word into numbers. ``words``: those
    of the texts that it was trained on. ``embedding_width``: D of the images' embeddings.
    """

    def __init__(
        self, settings: Settings, subwords: Subwords, words: Iterable[str], embedding_width: int
    ):
        super().__init__()
        self.settings, self.subwords, self.words = settings, subwords, frozenset(words)
        width = settings.width
        self.table = nn.Embedding(subwords.get_vocab_size(), width, padding_idx=PAD)
        self.positions = nn.Parameter(0.02 * torch.randn(MOST_SUBWORDS, width))
        nn.init.normal_(self.table.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width,
            settings.heads,
            4 * width,
            settings.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, embedding_width)

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Sub-words (B, n) int64, from the left, then PAD → unit embeddings (B, D) and states
        (B, n, width), which are 0 at PAD."""
        is_pad = numbers == PAD
        x = self.table(numbers) + self.positions[: numbers.shape[1]]
        x = self.norm(self.layers(x, src_key_padding_mask=is_pad))
        states = x.masked_fill(is_pad[..., None], 0)
        mean = states.sum(1) / (~is_pad).sum(1, keepdim=True)
        return F.normalize(self.head(mean), dim=-1), states

    def number(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """Return the sub-words (B, n) int64 of texts, each given as its words."""
        encoded = self.subwords.encode_batch([list(words) for words in texts], is_pretokenized=True)
        rows = [[START, *row.ids][:MOST_SUBWORDS] for row in encoded]
        numbers = torch.full((len(rows), max(map(len, rows), default=1)), PAD)
        for line, row in zip(numbers, rows, strict=True):
            line[: len(row)] = torch.tensor(row)
        return numbers

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that no training text has, in order, each once."""
        return [word for word in dict.fromkeys(split_words(text)) if word not in self.words]


def shape_memory(embeddings: Tensor, states: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return embeddings (B, D) and states (B, n, width) of texts as a decoder's summary (B, S) and
    tokens (B, P, T): zeros fill up what is missing, what is too much is cut."""
    tokens = _fit(_fit(states, shape.token_width).mT, shape.token_count).mT
    return _fit(embeddings, shape.summary_width), tokens


def _fit(values: Tensor, width: int) -> Tensor:
    """Cut the last dimension to ``width``, or fill it up with zeros."""
    return F.pad(values, (0, width - values.shape[-1]))


def compose(picture: Tensor, words: Tensor) -> Tensor:
    """Return what a decoder reads for a picture together with words: the mean of their summaries
    (B, S), or of their tokens (B, P, T). The decoder norms both, so no words change nothing."""
    return (picture + words) / 2
