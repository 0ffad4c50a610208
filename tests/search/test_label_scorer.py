"""A query's label is read by classifier and retriever, as probabilities of labels."""

from dataclasses import replace

import pytest
import torch

from irgen.models.tokenizer import Tokenizer
from irgen.search.label_scorer import LabelScorer


@pytest.fixture
def tokenizer(tokenizer_settings) -> Tokenizer:
    """Two labels along the first two axes; codes 0, 1 and 2 are of the first, the others of the
    second, code 2 hardly."""
    model = Tokenizer(replace(tokenizer_settings, width=5, codebook=6), 4, 2, None)
    model.classes.data = torch.eye(5)[:2]
    along = torch.tensor([[1.0, 0], [1, 0], [0.51, 0.49], [0, 1], [0, 1], [0, 1]])
    model.codebooks[0, :, :2] = along
    return model


def test_codes_of_one_label_stand_for_it_alike(tokenizer: Tokenizer) -> None:
    first = LabelScorer.build(tokenizer).code_labels[:, 0]
    assert first[0] == first[1] > first[2] > 0.5 > first[3] == first[4]


@torch.inference_mode()
def test_the_probability_is_the_mean_of_classifier_and_retriever(tokenizer: Tokenizer) -> None:
    label_scorer = LabelScorer.build(tokenizer)
    embeddings = torch.nn.functional.normalize(torch.randn(3, 5), dim=-1)
    first_codes = torch.randn(3, 6).softmax(1)
    probs = label_scorer.read_labels(embeddings, first_codes.log())
    predicted = first_codes @ label_scorer.code_labels
    classified = tokenizer.classify(embeddings).softmax(-1)
    torch.testing.assert_close(probs, (classified + predicted) / 2)
    torch.testing.assert_close(probs.sum(1), torch.ones(3))


def test_codes_after_the_last_that_an_image_has_count_as_impossible(tokenizer: Tokenizer) -> None:
    label_scorer, query = LabelScorer.build(tokenizer), torch.eye(5)[:1]
    first_codes = torch.tensor([[0.3, 0.3, 0.0, 0.4, 0.0, 0.0]])
    whole = label_scorer.read_labels(query, first_codes.log())
    torch.testing.assert_close(label_scorer.read_labels(query, first_codes[:, :4].log()), whole)
