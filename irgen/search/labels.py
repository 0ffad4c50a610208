"""What kind of image is meant: first entries, read as labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class LabelScorer:
    """The tokenizer's classifier, and ``labels`` (L, C): what it makes of each first entry, the
    probability of every label that it was taught."""

    tokenizer: Tokenizer
    labels: Tensor

    @classmethod
    @torch.inference_mode()
    def of(cls, tokenizer: Tokenizer) -> "LabelScorer":
        """Those of a tokenizer, on its device; images must have their codes by it."""
        return cls(tokenizer, tokenizer.classify(tokenizer.codebooks[0]).softmax(-1))

    @torch.inference_mode()
    def alike(self, embeddings: Tensor) -> Tensor:
        """(Q, L): the logarithm of the probability that queries with these unit embeddings (Q, D)
        carry the label of an image whose code begins with each entry. So entries of one label stand
        for each other, which the entry that is written alone does not know."""
        return self._shared(self.tokenizer.classify(embeddings).softmax(-1))

    def written(self, opening: Tensor) -> Tensor:
        """(Q, L): the same, as a retriever reads the queries that writes each of the first
        ``size`` entries with the log-probability ``opening`` (Q, size), and no other: what entries
        of one label have, all of them have."""
        return self._shared(opening.exp() @ self.labels[: opening.shape[1]])

    def _shared(self, told: Tensor) -> Tensor:
        """The logarithm of the probability that a label told by ``told`` (Q, C) is an entry's;
        finite, so that of entries beyond the smallest number the cosine still tells."""
        return (told @ self.labels.T).clamp_min(torch.finfo(told.dtype).tiny).log()
