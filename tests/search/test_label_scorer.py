"""First codes of the same label score alike."""

from dataclasses import replace

import pytest
import torch

from irgen.models.tokenizer import Tokenizer
from irgen.search import beam, engine
from irgen.search.decoder import Decoder
from irgen.search.engine import Options
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


def test_first_codes_of_one_label_score_alike(tokenizer: Tokenizer) -> None:
    of_the_first = torch.eye(5)[:1]
    alike = LabelScorer.build(tokenizer).score_query_labels(of_the_first).exp()[0]
    assert alike[0] == alike[1] and alike[3] == alike[4]
    assert alike[0] > alike[2] > 0.5 > alike[3]
    unknown = (
        LabelScorer.build(tokenizer).score_query_labels(torch.eye(5)[4:]).exp()[0]
    )  # as far from both labels
    torch.testing.assert_close(unknown, torch.full((6,), 0.5))


@torch.inference_mode()
def test_the_score_is_the_probability_of_a_shared_label(tokenizer: Tokenizer) -> None:
    embeddings = torch.nn.functional.normalize(torch.randn(3, 5), dim=-1)
    label_scorer, label_probabilities = (
        LabelScorer.build(tokenizer),
        tokenizer.classify(embeddings).softmax(-1),
    )
    scores = label_scorer.score_query_labels(embeddings).exp()
    for query in range(3):
        for code in range(6):
            expected = sum(
                float(label_probabilities[query, c] * label_scorer.code_labels[code, c])
                for c in range(2)
            )
            assert float(scores[query, code]) == pytest.approx(expected, rel=1e-5)


def test_scores_of_impossible_labels_stay_finite(tokenizer: Tokenizer) -> None:
    tokenizer.scale = 1 / 0.001
    alike = LabelScorer.build(tokenizer).score_query_labels(torch.eye(5)[:1])
    assert alike.isfinite().all() and float(alike.min()) < -80 < float(alike.max())


def test_predicted_first_codes_share_the_probability_of_their_label(tokenizer: Tokenizer) -> None:
    """One code of the second label is the likeliest; the two of the first together are likelier."""
    label_scorer = LabelScorer.build(tokenizer)
    opening = torch.tensor([[0.3, 0.3, 0.0, 0.4, 0.0, 0.0]])
    probabilities = label_scorer.score_predicted_labels(opening.log()).exp()[0]
    assert (
        probabilities[0]
        == probabilities[1]
        > probabilities[2]
        > probabilities[3]
        == probabilities[4]
    )
    of_label = opening @ label_scorer.code_labels  # (1, C)
    torch.testing.assert_close(probabilities, (of_label @ label_scorer.code_labels.T)[0])
    as_short = label_scorer.score_predicted_labels(opening[:, :4].log()).exp()[
        0
    ]  # no image has an code after these
    torch.testing.assert_close(as_short, probabilities)


def test_order_by_label_sorts_hits_that_are_not_re_ranked(tokenizer, decoder, read, fresh) -> None:
    snapshot, asked = fresh(list(range(50))), read(4)
    label_scorer = LabelScorer.build(tokenizer)
    both = Decoder(decoder.retriever, label_scorer=label_scorer)
    by_label = Options(beams=216, candidates=1000, rerank=False, order_by="label")
    hits = engine.search(both, asked, snapshot, 50, by_label)
    by_first_code = engine.search(
        both, asked, snapshot, 50, replace(by_label, order_by="first_code")
    )
    first = snapshot.gather(hits.rows, "codes")[..., 0].long()
    opening = torch.full((4, 6), -torch.inf)
    opening.scatter_(
        1, snapshot.gather(by_first_code.rows, "codes")[..., 0].long(), by_first_code.scores
    )
    torch.testing.assert_close(
        hits.scores, label_scorer.score_predicted_labels(opening).gather(1, first)
    )
    assert (hits.scores.diff(dim=1) <= 0).all()
    same = hits.scores.diff(dim=1) == 0
    assert (hits.cosine.diff(dim=1)[same] <= 0).all(), "within a label, by cosine"
    assert (first.diff(dim=1)[same] != 0).any(), "codes of one label score alike"
    as_without = engine.search(decoder, asked, snapshot, 50, by_label)
    assert torch.equal(as_without.scores, by_first_code.scores), (
        "without a label scorer, by the first code"
    )


@pytest.mark.parametrize("by", ["label", "both"])
def test_the_rerank_signal_changes_the_order(
    tokenizer: Tokenizer, decoder, read, fresh, by
) -> None:
    snapshot, asked = fresh(list(range(50))), read(4)
    label_scorer = LabelScorer.build(tokenizer)
    with_labels = Decoder(decoder.retriever, label_scorer=label_scorer)
    options = Options(
        beams=216, candidates=1000, rerank_weight=0.3, rerank_signal=by, fresh_beams=0
    )
    hits = engine.search(with_labels, asked, snapshot, 50, options)
    first = snapshot.gather(hits.rows, "codes")[..., 0].long()
    writing = decoder.start(asked.summary, asked.tokens)
    opening = beam.search(
        writing, [snapshot.live_parts(fresh=False)[0].live], 216
    ).first_code_log_probs
    as_read, as_written = (
        label_scorer.score_query_labels(asked.embedding).exp(),
        label_scorer.score_predicted_labels(opening).exp(),
    )
    assert not torch.allclose(as_read, as_written, atol=0.1), (
        "query labels and predicted labels differ"
    )
    signal = as_read if by == "label" else (as_read + as_written) / 2
    expected = 0.3 * signal.log().gather(1, first)
    cosines = torch.bmm(
        snapshot.gather(hits.rows, "embeddings").float(), asked.embedding[..., None]
    )
    torch.testing.assert_close(hits.scores, cosines[..., 0] + expected)
    assert (hits.scores.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("by", ["label", "both"])
def test_without_a_label_scorer_the_first_code_sorts(tokenizer, decoder, read, fresh, by) -> None:
    snapshot, asked = fresh(list(range(50))), read(4)
    both = Decoder(decoder.retriever, label_scorer=LabelScorer.build(tokenizer))
    by_label = Options(
        beams=216, candidates=1000, rerank_weight=0.3, rerank_signal=by, fresh_beams=0
    )
    by_first_code = replace(by_label, rerank_signal="first_code")
    expected = engine.search(decoder, asked, snapshot, 50, by_first_code).scores
    assert torch.equal(engine.search(decoder, asked, snapshot, 50, by_label).scores, expected)
    assert torch.equal(engine.search(both, asked, snapshot, 50, by_first_code).scores, expected)
    assert not torch.equal(engine.search(both, asked, snapshot, 50, by_label).scores, expected)
