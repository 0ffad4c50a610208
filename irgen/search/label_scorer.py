"""Read a query's label with classifier and retriever, and a first code's with the classifier."""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class LabelScorer:
    """Classifier of the tokenizer, applied to queries and to first codes.

    ``code_labels`` (L, T): the classifier's probability of each training label for each first code.
    """

    tokenizer: Tokenizer
    code_labels: Tensor

    @classmethod
    @torch.inference_mode()
    def build(cls, tokenizer: Tokenizer) -> "LabelScorer":
        """Return the scorer on the tokenizer's device. Codes must come from this tokenizer."""
        return cls(tokenizer, tokenizer.classify(tokenizer.codebooks[0]).softmax(-1))

    @torch.inference_mode()
    def read_labels(self, embeddings: Tensor, first_code_log_probs: Tensor) -> Tensor:
        """Return the probabilities (Q, T) of the training labels: the mean of what the classifier
        reads in unit embeddings (Q, D) and what the first codes stand for that the retriever
        predicts, (Q, L₀) log-probabilities, L₀ ≤ L."""
        classified = self.tokenizer.classify(embeddings).softmax(-1)
        predicted = first_code_log_probs.exp()
        return (classified + predicted @ self.code_labels[: predicted.shape[1]]) / 2
