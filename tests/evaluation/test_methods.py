"""Methods that are made of simple parts."""

import torch

from irgen.evaluation import methods
from irgen.evaluation.methods import Encoder


def test_images_of_the_likeliest_label_come_first_and_those_of_none_last() -> None:
    normal = torch.nn.functional.normalize
    generator = torch.Generator().manual_seed(0)
    database = normal(torch.randn(40, 6, generator=generator), dim=-1)
    queries = normal(torch.randn(5, 6, generator=generator), dim=-1)
    labels = torch.arange(40) % 4 - 1  # −1: none
    told = torch.randn(5, 3, generator=generator)
    encoder = Encoder(lambda pixels: queries, lambda rows: queries[rows])
    method = methods.classified(encoder, database, labels, lambda vectors: told, 28.0)
    found = method.search(queries, 40)
    cosines = queries @ database.T
    for query in range(5):
        order = [*told[query].argsort(descending=True).tolist(), -1]
        expected = sorted(
            range(40), key=lambda row: (order.index(int(labels[row])), -cosines[query, row])
        )
        assert found.ids[query].tolist() == expected
    assert (found.scores.diff(dim=1) <= 0).all()
