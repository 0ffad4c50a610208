"""From a query image to its identifier: the reader encodes it, the decoder writes."""

from collections.abc import Sequence

from torch import Tensor, nn

from irgen.models.decoder import IdentifierDecoder
from irgen.models.encoder import ImageEncoder
from irgen.models.tokenizer import adapt


class QueryEncoder(nn.Module):
    """An encoder, and the tokenizer's adapter where the encoder is shared with it: the summary is
    then the tuned embedding, else the encoder's own."""

    def __init__(self, encoder: ImageEncoder, adapter: nn.Module | None):
        super().__init__()
        self.encoder, self.adapter = encoder, adapter

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, C, H, W) from 0 to 255 → summary (B, S), tokens (B, P, T)."""
        summary, tokens = self.encoder(pixels)
        return (summary if self.adapter is None else adapt(self.adapter, summary)), tokens


class Retriever(nn.Module):
    """A reader and a decoder. ``reader`` is None while what a frozen reader made is read from a
    cache."""

    def __init__(self, reader: QueryEncoder | None, decoder: IdentifierDecoder):
        super().__init__()
        self.reader, self.decoder = reader, decoder

    def read(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """[pixels], or [summaries, tokens] without a reader → summary (B, S), tokens (B, P, T)."""
        summary, tokens = inputs if self.reader is None else self.reader(inputs[0])
        return summary, tokens

    def forward(self, inputs: Sequence[Tensor], codes: Tensor) -> Tensor:
        """Teacher-forced logits (B, M, L)."""
        return self.decoder(*self.read(inputs), codes)
