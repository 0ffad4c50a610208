"""First entries that stand for the same label stand for each other."""

from dataclasses import replace

import pytest
import torch

from irgen.models.tokenizer import Tokenizer
from irgen.search import engine
from irgen.search.decoder import Decoder
from irgen.search.engine import Options
from irgen.search.kinds import Kinds


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
    writes_0 = torch.tensor([[1.0, 0, 0, 0, 0, 0]]).log()
    says_nothing = torch.eye(5)[4:]  # as far from both labels
    alike = Kinds.of(tokenizer).alike(writes_0, says_nothing).exp()[0]
    assert alike[0] == alike[1] and alike[3] == alike[4]
    assert alike[0] > alike[2] > 0.5 > alike[3]


@torch.inference_mode()
def test_it_is_the_probability_of_one_label(tokenizer: Tokenizer) -> None:
    opening = torch.rand(3, 6).log_softmax(-1)
    embeddings = torch.nn.functional.normalize(torch.randn(3, 5), dim=-1)
    kinds = Kinds.of(tokenizer)
    told = opening.exp() @ kinds.labels / 2 + tokenizer.classify(embeddings).softmax(-1) / 2
    for query in range(3):
        for entry in range(6):
            expected = sum(float(told[query, c] * kinds.labels[entry, c]) for c in range(2))
            found = float(kinds.alike(opening, embeddings)[query, entry].exp())
            assert found == pytest.approx(expected, rel=1e-5)


def test_the_classifier_is_heard_where_the_retriever_is_wrong(tokenizer: Tokenizer) -> None:
    unsure = torch.full((1, 6), 1 / 6).log()
    of_the_second = Kinds.of(tokenizer).alike(unsure, torch.eye(5)[1:2])[0]
    assert of_the_second[3] > of_the_second[0]


def test_of_fewer_entries_there_are_fewer(tokenizer: Tokenizer) -> None:
    """The largest first entry of a database may be below L − 1."""
    opening = torch.tensor([[0.5, 0.5, 0.0]]).log()
    assert Kinds.of(tokenizer).alike(opening, torch.eye(5)[:1]).shape == (1, 3)


def test_a_search_orders_by_it(tokenizer: Tokenizer, decoder, read, fresh) -> None:
    snapshot, asked = fresh(list(range(50))), read(4)
    both = Decoder(decoder.retriever, kinds=Kinds.of(tokenizer))
    options = Options(beams=216, candidates=1000, fuse=0.3, fuse_by="label", fresh_beams=0)
    hits = engine.search(both, asked, snapshot, 50, options)
    opening = engine.beam.search(
        both.read(asked.summary, asked.tokens), [part for _, part in snapshot.parts(False)], 216
    ).opening
    first = snapshot.gather(hits.rows, "codes")[..., 0].long()
    expected = 0.3 * Kinds.of(tokenizer).alike(opening, asked.embedding).gather(1, first)
    cosines = torch.bmm(
        snapshot.gather(hits.rows, "embeddings").float(), asked.embedding[..., None]
    )
    torch.testing.assert_close(hits.scores, cosines[..., 0] + expected)
    assert (hits.scores.diff(dim=1) <= 0).all()
    by_entry = replace(options, fuse_by="entry")
    as_without = engine.search(decoder, asked, snapshot, 50, by_entry)
    assert torch.equal(engine.search(both, asked, snapshot, 50, by_entry).scores, as_without.scores)
    assert torch.equal(
        engine.search(decoder, asked, snapshot, 50, options).scores, as_without.scores
    )
