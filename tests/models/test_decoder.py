import dataclasses

import pytest
import torch

from irgen.models.decoder import IdentifierDecoder, Shape, loss

SHAPE = Shape(summary_width=12, token_width=10, token_count=5, levels=4, codebook=7)


@pytest.fixture
def retriever(retriever_settings) -> IdentifierDecoder:
    torch.manual_seed(0)
    return IdentifierDecoder(retriever_settings, SHAPE).eval()


def image(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(count, 12, generator=generator),
        torch.randn(count, 5, 10, generator=generator),
    )


def test_logits_of_a_level_do_not_see_later_codes(retriever):
    summary, tokens = image(1)
    one = retriever(summary, tokens, torch.tensor([[1, 2, 3, 4]]))
    other = retriever(summary, tokens, torch.tensor([[1, 2, 6, 0]]))
    assert torch.equal(one[:, :3], other[:, :3])
    assert not torch.equal(one[:, 3], other[:, 3])


def test_every_image_token_and_the_summary_matter(retriever):
    summary, tokens = image(1)
    codes = torch.zeros(1, 4, dtype=torch.int64)
    before = retriever(summary, tokens, codes)
    assert not torch.equal(before, retriever(summary + 1 * torch.arange(12), tokens, codes))
    for position in range(5):
        changed = tokens.clone()
        changed[:, position] = changed[:, position].flip(-1)
        assert not torch.equal(before, retriever(summary, changed, codes))


def test_the_loss_of_certain_and_right_logits_is_nothing_without_smoothing():
    codes = torch.tensor([[0, 2], [1, 1]])
    logits = 1000 * torch.nn.functional.one_hot(codes, 3).float()
    assert float(loss(logits, codes, 0.0)) == 0.0
    assert float(loss(logits, codes, 0.1)) > 0.0


def test_one_level_alone_works(retriever_settings):
    shape = dataclasses.replace(SHAPE, levels=1)
    retriever = IdentifierDecoder(retriever_settings, shape)
    assert retriever(*image(2), torch.tensor([[3], [4]])).shape == (2, 1, 7)
