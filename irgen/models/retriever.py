"""Retriever: a query encoder, and a decoder that predicts a neighbour's code sequence."""

from collections.abc import Sequence

from torch import Tensor, nn

from irgen.models.decoder import IdentifierDecoder
from irgen.models.encoder import ImageEncoder
from irgen.models.tokenizer import Adapter


class QueryEncoder(nn.Module):
    """An image encoder, and the tokenizer's adapter where it shares the tokenizer's encoder.

    The summary is then the tuned embedding, else the encoder's own.
    """

    def __init__(self, encoder: ImageEncoder, adapter: Adapter | None):
        super().__init__()
        self.encoder, self.adapter = encoder, adapter

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, C, H, W) from 0 to 255 → summary (B, S), tokens (B, P, T)."""
        summary, tokens = self.encoder(pixels)
        return (summary if self.adapter is None else self.adapter(summary)), tokens


class Retriever(nn.Module):
    """A query encoder and an identifier decoder (paper, section 3.2).

    ``query_encoder`` is None while training on cached outputs of a frozen encoder.
    """

    def __init__(self, query_encoder: QueryEncoder | None, decoder: IdentifierDecoder):
        super().__init__()
        self.query_encoder, self.decoder = query_encoder, decoder

    def encode(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Turn [pixels], or [summaries, tokens] without an encoder, into summary (B, S) and tokens
        (B, P, T)."""
        summary, tokens = inputs if self.query_encoder is None else self.query_encoder(inputs[0])
        return summary, tokens

    def forward(self, inputs: Sequence[Tensor], codes: Tensor) -> Tensor:
        """Compute teacher-forced logits (B, M, L) of codes (B, M)."""
        return self.decoder(*self.encode(inputs), codes)
