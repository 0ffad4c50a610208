"""What kind of image is meant: the first entries that the retriever writes, read as labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Kinds:
    """The tokenizer's classifier, and ``labels`` (L, C): what it makes of each first entry, the
    probability of every label that it was taught."""

    tokenizer: Tokenizer
    labels: Tensor

    @classmethod
    @torch.inference_mode()
    def of(cls, tokenizer: Tokenizer) -> "Kinds":
        """Those of a tokenizer, on its device; images must have their codes by it."""
        return cls(tokenizer, tokenizer.classify(tokenizer.codebooks[0]).softmax(-1))

    @torch.inference_mode()
    def alike(self, opening: Tensor, embeddings: Tensor) -> Tensor:
        """(Q, size): the logarithm of the probability that a query and an image whose code begins
        with each entry carry the same label.

        A query's label is told by two, whose probabilities are averaged: the retriever, by the
        first entries it would write, ``opening`` (Q, size) in logarithms, and the classifier, by
        the query's unit embedding (Q, D). An image's label is told by its first entry. So entries
        of one label stand for each other, which the entry that is written alone does not know.
        """
        labels = self.labels[: opening.shape[1]]
        written = opening.exp() @ labels  # (Q, C)
        seen = self.tokenizer.classify(embeddings).softmax(-1)
        return ((written + seen) / 2 @ labels.T).log()
