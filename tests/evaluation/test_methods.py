"""Methods that are made of simple parts."""

import pytest
import torch

from irgen.evaluation import methods
from irgen.evaluation.methods import Encoder
from irgen.search import trie
from irgen.search.snapshot import Snapshot


def test_images_of_the_likeliest_label_come_first_and_those_of_none_last() -> None:
    normal = torch.nn.functional.normalize
    generator = torch.Generator().manual_seed(0)
    database = normal(torch.randn(40, 6, generator=generator), dim=-1)
    queries = normal(torch.randn(5, 6, generator=generator), dim=-1)
    labels = torch.arange(40) % 4 - 1  # −1: none
    label_scores = torch.randn(5, 3, generator=generator)
    encoder = Encoder(lambda pixels: queries, lambda rows: queries[rows])
    method = methods.search_by_label(encoder, database, labels, lambda vectors: label_scores, 28.0)
    hits = method.search(queries, 40)
    cosines = queries @ database.T
    for query in range(5):
        order = [*label_scores[query].argsort(descending=True).tolist(), -1]
        expected = sorted(
            range(40), key=lambda row: (order.index(int(labels[row])), -cosines[query, row])
        )
        assert hits.ids[query].tolist() == expected
    assert (hits.scores.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_what_a_search_holds_is_counted_whatever_the_number_of_levels(levels: int) -> None:
    codes = torch.arange(60)[:, None].expand(60, levels) % 5
    database = Snapshot.fixed(trie.build(codes), codes, torch.randn(60, 8), torch.empty(0))
    held = methods.measure_memory(database)
    whole = trie.build(codes).nbytes + codes.nbytes + 60 * 8 * 4 + 60 * 8 + 60
    tables = 4 * 5 if levels == 1 else 4 * 5 + 4 * 6 * 5  # of the first level, of the second
    assert (
        whole + tables <= held < whole + 2 * tables + 1000
    )  # of rows that are fresh there is none
