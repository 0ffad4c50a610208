"""Score codes by the tokenizer's codebooks: a beam search for the codes nearest to an embedding,
without the retriever."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class CodebookScorer:
    """Quantise query embeddings residually, beam by beam.

    A code's step score is the amount by which it reduces the squared distance between the embedding
    z and the reconstruction f^≤m. So a code sequence scores ‖z‖² − ‖z − f‖². ``residuals``
    (Q, beams, D): z minus each beam's reconstruction; ``codebooks`` (M, L, D).
    """

    codebooks: Tensor
    residuals: Tensor

    @classmethod
    def start(cls, embeddings: Tensor, codebooks: Tensor) -> "CodebookScorer":
        """Return the scorer of embeddings (Q, D) before the first code."""
        return cls(codebooks, embeddings.float()[:, None])

    @property
    def queries(self) -> int:
        """Q."""
        return len(self.residuals)

    @property
    def device(self) -> torch.device:
        """Return the device of the scores."""
        return self.residuals.device

    def step_scores(self, level: int, last: Tensor, origin: Tensor) -> Tensor:
        """Return each code's reduction of the squared distance, (Q, beams, L); arguments as of
        ``DecoderState.step_scores``."""
        if level:
            width = self.residuals.shape[-1]
            residuals = self.residuals.gather(1, origin[..., None].expand(-1, -1, width))
            self.residuals = residuals - self.codebooks[level - 1][last]  # (Q, beams, D)
        vectors = self.codebooks[level]  # (L, D)
        return 2 * self.residuals @ vectors.T - vectors.square().sum(-1)
