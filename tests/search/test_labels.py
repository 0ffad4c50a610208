"""First entries that stand for the same label stand for each other."""

from dataclasses import replace

import pytest
import torch

from irgen.models.tokenizer import Tokenizer
from irgen.search import beam, engine
from irgen.search.decoder import Decoder
from irgen.search.engine import Options
from irgen.search.labels import LabelScorer


@pytest.fixture
def tokenizer(tokenizer_settings) -> Tokenizer:
    """Two labels along the first two axes; entries 0, 1 and 2 are of the first, the others of the
    second, entry 2 hardly."""
    model = Tokenizer(replace(tokenizer_settings, width=5, codebook=6), 4, 2, None)
    model.classes.data = torch.eye(5)[:2]
    along = torch.tensor([[1.0, 0], [1, 0], [0.51, 0.49], [0, 1], [0, 1], [0, 1]])
    model.codebooks[0, :, :2] = along
    return model


def test_an_entry_counts_as_those_of_its_label_do(tokenizer: Tokenizer) -> None:
    of_the_first = torch.eye(5)[:1]
    alike = LabelScorer.of(tokenizer).alike(of_the_first).exp()[0]
    assert alike[0] == alike[1] and alike[3] == alike[4]
    assert alike[0] > alike[2] > 0.5 > alike[3]
    unknown = LabelScorer.of(tokenizer).alike(torch.eye(5)[4:]).exp()[0]  # as far from both labels
    torch.testing.assert_close(unknown, torch.full((6,), 0.5))


@torch.inference_mode()
def test_it_is_the_probability_of_one_label(tokenizer: Tokenizer) -> None:
    embeddings = torch.nn.functional.normalize(torch.randn(3, 5), dim=-1)
    kinds, told = LabelScorer.of(tokenizer), tokenizer.classify(embeddings).softmax(-1)
    found = kinds.alike(embeddings).exp()
    for query in range(3):
        for entry in range(6):
            expected = sum(float(told[query, c] * kinds.labels[entry, c]) for c in range(2))
            assert float(found[query, entry]) == pytest.approx(expected, rel=1e-5)


def test_the_cosine_tells_where_labels_are_as_good_as_impossible(tokenizer: Tokenizer) -> None:
    tokenizer.scale = 1 / 0.001
    alike = LabelScorer.of(tokenizer).alike(torch.eye(5)[:1])
    assert alike.isfinite().all() and float(alike.min()) < -80 < float(alike.max())


def test_entries_that_are_written_share_what_their_label_has(tokenizer: Tokenizer) -> None:
    """One entry of the second label is the likeliest, the two of the first together are more so."""
    kinds = LabelScorer.of(tokenizer)
    opening = torch.tensor([[0.3, 0.3, 0.0, 0.4, 0.0, 0.0]])
    told = kinds.written(opening.log()).exp()[0]
    assert told[0] == told[1] > told[2] > told[3] == told[4]
    of_label = opening @ kinds.labels  # (1, C)
    torch.testing.assert_close(told, (of_label @ kinds.labels.T)[0])
    as_short = kinds.written(opening[:, :4].log()).exp()[0]  # no image has an entry after these
    torch.testing.assert_close(as_short, told)


def test_images_that_are_not_re_ranked_stand_by_it(tokenizer, decoder, read, fresh) -> None:
    snapshot, asked = fresh(list(range(50))), read(4)
    kinds = LabelScorer.of(tokenizer)
    both = Decoder(decoder.retriever, kinds=kinds)
    by_label = Options(beams=216, candidates=1000, rerank=False, order_by="label")
    hits = engine.search(both, asked, snapshot, 50, by_label)
    by_entry = engine.search(both, asked, snapshot, 50, replace(by_label, order_by="entry"))
    first = snapshot.gather(hits.rows, "codes")[..., 0].long()
    opening = torch.full((4, 6), -torch.inf)
    opening.scatter_(1, snapshot.gather(by_entry.rows, "codes")[..., 0].long(), by_entry.scores)
    torch.testing.assert_close(hits.scores, kinds.written(opening).gather(1, first))
    assert (hits.scores.diff(dim=1) <= 0).all()
    same = hits.scores.diff(dim=1) == 0
    assert (hits.cosine.diff(dim=1)[same] <= 0).all(), "of one label, by cosine"
    assert (first.diff(dim=1)[same] != 0).any(), "entries of one label stand for each other"
    as_without = engine.search(decoder, asked, snapshot, 50, by_label)
    assert torch.equal(as_without.scores, by_entry.scores), "without kinds, by the entry"


@pytest.mark.parametrize("by", ["label", "both"])
def test_a_search_orders_by_it(tokenizer: Tokenizer, decoder, read, fresh, by) -> None:
    snapshot, asked = fresh(list(range(50))), read(4)
    kinds = LabelScorer.of(tokenizer)
    with_kinds = Decoder(decoder.retriever, kinds=kinds)
    options = Options(
        beams=216, candidates=1000, rerank_weight=0.3, rerank_signal=by, fresh_beams=0
    )
    hits = engine.search(with_kinds, asked, snapshot, 50, options)
    first = snapshot.gather(hits.rows, "codes")[..., 0].long()
    writing = decoder.read(asked.summary, asked.tokens)
    opening = beam.search(writing, [snapshot.parts(fresh=False)[0][1]], 216).opening
    as_read, as_written = kinds.alike(asked.embedding).exp(), kinds.written(opening).exp()
    assert not torch.allclose(as_read, as_written, atol=0.1), "they are of two minds"
    told = as_read if by == "label" else (as_read + as_written) / 2
    expected = 0.3 * told.log().gather(1, first)
    cosines = torch.bmm(
        snapshot.gather(hits.rows, "embeddings").float(), asked.embedding[..., None]
    )
    torch.testing.assert_close(hits.scores, cosines[..., 0] + expected)
    assert (hits.scores.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("by", ["label", "both"])
def test_without_labels_to_go_by_it_orders_by_entries(tokenizer, decoder, read, fresh, by) -> None:
    snapshot, asked = fresh(list(range(50))), read(4)
    both = Decoder(decoder.retriever, kinds=LabelScorer.of(tokenizer))
    by_label = Options(
        beams=216, candidates=1000, rerank_weight=0.3, rerank_signal=by, fresh_beams=0
    )
    by_entry = replace(by_label, rerank_signal="entry")
    expected = engine.search(decoder, asked, snapshot, 50, by_entry).scores
    assert torch.equal(engine.search(decoder, asked, snapshot, 50, by_label).scores, expected)
    assert torch.equal(engine.search(both, asked, snapshot, 50, by_entry).scores, expected)
    assert not torch.equal(engine.search(both, asked, snapshot, 50, by_label).scores, expected)
