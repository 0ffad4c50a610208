"""The tokenizer's codebooks as a scorer: an image's own embedding leads a beam search to the codes
nearest to it, without the retriever."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class CodebookScorer:
    """Residual quantisation of query embeddings, beam by beam.

    The gain of an entry is what it takes off the squared distance between the embedding z and the
    reconstruction f^≤m, so a code's score is ‖z‖² − ‖z − f‖². ``residuals`` (Q, beams, D): z minus
    what each beam has written; ``codebooks`` (M, L, D).
    """

    codebooks: Tensor
    residuals: Tensor

    @classmethod
    def of(cls, embeddings: Tensor, codebooks: Tensor) -> "CodebookScorer":
        """From embeddings (Q, D) alone, nothing written."""
        return cls(codebooks, embeddings.float()[:, None])

    @property
    def queries(self) -> int:
        """Q."""
        return len(self.residuals)

    @property
    def device(self) -> torch.device:
        """Where the scores come from."""
        return self.residuals.device

    def gains(self, level: int, last: Tensor, origin: Tensor) -> Tensor:
        """What each entry takes off the squared distance, (Q, beams, L); arguments as of
        ``DecoderState.gains``."""
        if level:
            width = self.residuals.shape[-1]
            kept = self.residuals.gather(1, origin[..., None].expand(-1, -1, width))
            self.residuals = kept - self.codebooks[level - 1][last]  # (Q, beams, D)
        entries = self.codebooks[level]
        return 2 * self.residuals @ entries.T - entries.square().sum(-1)
