"""A small decoder, and databases of random images, M = 3, L = 6, D = 5."""

import pytest
import torch

from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.search.decoder import Decoder
from irgen.search.engine import QueryFeatures
from irgen.search.snapshot import Segment, Snapshot

SHAPE = Shape(summary_width=6, token_width=8, token_count=4, levels=3, codebook=6)


@pytest.fixture
def decoder(retriever_settings) -> Decoder:
    torch.manual_seed(0)
    model = IdentifierDecoder(retriever_settings, SHAPE)
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform, so that orders are certain
    return Decoder(model)


@pytest.fixture
def read():
    """Of a number of query images, what models would have read."""

    def make(count: int, seed: int = 5) -> QueryFeatures:
        generator = torch.Generator().manual_seed(seed)
        return QueryFeatures(
            torch.randn(count, 6, generator=generator),
            torch.randn(count, 4, 8, generator=generator),
            torch.nn.functional.normalize(torch.randn(count, 5, generator=generator), dim=-1),
        )

    return make


@pytest.fixture
def images():
    """Of numbers, images that follow from them alone: codes, embeddings, keys, trained."""

    def make(numbers: list[int]) -> tuple[torch.Tensor, ...]:
        rows = []
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            code = torch.randint(6, (3,), generator=generator)
            vector = torch.nn.functional.normalize(torch.randn(5, generator=generator), dim=0)
            if number % 7 == 0:  # some look exactly alike
                vector = torch.eye(5)[0]
            key = int(torch.randint(2**62, (), generator=generator))
            rows.append((code, vector.half(), torch.tensor(key), torch.tensor(number % 3 > 0)))
        if not rows:
            kinds = (torch.int64, torch.float16, torch.int64, torch.bool)
            shapes = ((0, 3), (0, 5), (0,), (0,))
            return tuple(torch.empty(s, dtype=t) for s, t in zip(shapes, kinds, strict=True))
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    return make


@pytest.fixture
def fresh(images):
    """Return a function that builds the snapshot of a new index of some images."""
    codebooks = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(1))

    def make(numbers: list[int]) -> Snapshot:
        columns = images(numbers)
        order = columns[2].argsort()
        segment = Segment.build(*(column[order] for column in columns))
        return Snapshot.build((segment,), (torch.ones(len(order), dtype=torch.bool),), codebooks)

    return make
