"""Queries in words beside the images of a batch: one retriever learns from both."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from irgen.encoding.texts import ImageTexts
from irgen.models.decoder import IdentifierDecoder, loss
from irgen.models.text import TextEncoder, compose, shape_memory
from irgen.params import Texts as Settings


@dataclass(frozen=True)
class WordQueries:
    """Texts of N training images with codes (N, M), and the trained text encoder, which stays as it
    is. ``smoothing``: of the labels in the loss."""

    encoder: TextEncoder
    texts: ImageTexts
    codes: Tensor
    settings: Settings
    smoothing: float

    def mean_loss(
        self,
        decoder: IdentifierDecoder,
        memory: tuple[Tensor, Tensor],
        rows: Tensor,
        codes: Tensor,
        generator: np.random.Generator,
    ) -> Tensor:
        """Return the loss of ``texts.share`` of a batch's images, asked for in words and by picture
        and words together; 0 if none of them has a text.

        ``rows`` (B,) of the images, ``memory``: their summaries (B, S) and tokens (B, P, T). Words
        predict the code of the image whose they are; picture and words predict ``codes`` (B, M),
        as the picture does alone.
        """
        first = rows[: round(self.settings.share * len(rows))]
        asked = [n for n, row in enumerate(first.tolist()) if len(self.texts.of_image(row))]
        if not asked:
            return memory[0].new_zeros(())
        words = self._read(rows[asked], decoder, generator)
        both = [compose(picture[asked], text) for picture, text in zip(memory, words, strict=True)]
        own = self.codes[rows[asked]].to(codes.device)
        wanted = codes[asked]
        alone = loss(decoder(*words, own).float(), own, self.smoothing)
        together = loss(decoder(*both, wanted).float(), wanted, self.smoothing)
        return self.settings.share * (alone + together)

    @torch.no_grad()
    def _read(
        self, rows: Tensor, decoder: IdentifierDecoder, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return what the decoder reads of drawn wordings of images ``rows`` (B,)."""
        dropped = self.settings.dropout
        wordings = [self.texts.draw(row, dropped, generator) for row in rows.tolist()]
        numbers = self.encoder.number([wording.words for wording in wordings])
        embeddings, states = self.encoder(numbers.to(self.encoder.centre.device))
        return shape_memory(embeddings, states, decoder.shape)
