"""Score first codes by the labels that they stand for."""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class LabelScorer:
    """Classifier of the tokenizer, applied to queries and to first codes.

    ``code_labels`` (L, C): the classifier's probability of each training label for each first code.
    Two first codes of one label score alike here; the retriever alone treats them as unrelated.
    """

    tokenizer: Tokenizer
    code_labels: Tensor

    @classmethod
    @torch.inference_mode()
    def build(cls, tokenizer: Tokenizer) -> "LabelScorer":
        """Return the scorer on the tokenizer's device. Codes must come from this tokenizer."""
        return cls(tokenizer, tokenizer.classify(tokenizer.codebooks[0]).softmax(-1))

    @torch.inference_mode()
    def score_query_labels(self, embeddings: Tensor) -> Tensor:
        """Classify unit embeddings (Q, D); return (Q, L), the log-probability that the query has
        the label of each first code."""
        return self._score(self.tokenizer.classify(embeddings).softmax(-1))

    def score_predicted_labels(self, first_code_log_probs: Tensor) -> Tensor:
        """Return the same (Q, L), with the labels taken from the first codes that the retriever
        predicts: (Q, L₀) log-probabilities, L₀ ≤ L."""
        predicted = first_code_log_probs.exp()
        return self._score(predicted @ self.code_labels[: predicted.shape[1]])

    def _score(self, query_labels: Tensor) -> Tensor:
        """Return log P(query and first code have one label) of label probabilities (Q, C). It is
        finite, so that the cosine still orders images of hopeless codes."""
        shared = query_labels @ self.code_labels.T
        return shared.clamp_min(torch.finfo(shared.dtype).tiny).log()
