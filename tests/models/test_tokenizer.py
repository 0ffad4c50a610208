import dataclasses

import pytest
import torch

from irgen.errors import ParamsError
from irgen.models import quantizer
from irgen.models.tokenizer import Tokenizer, embed_summaries, losses, neighbour_loss


def tokenizer(settings, classes: int = 3) -> Tokenizer:
    torch.manual_seed(0)
    model = Tokenizer(settings, 10, classes, None).eval()
    embeddings = model.embed(torch.randn(64, 10))
    shape = (settings.levels, settings.codebook)
    model.codebooks.copy_(quantizer.fit(embeddings.detach(), None, shape, 5, 0)[0])
    return model


def test_embeddings_have_length_one(tokenizer_settings):
    embeddings = tokenizer(tokenizer_settings).embed(torch.randn(5, 10))
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(5))


def test_prefix_losses_reach_the_embedding_straight_through(tokenizer_settings):
    model = tokenizer(tokenizer_settings)
    embeddings = model.embed(torch.randn(8, 10)).detach().requires_grad_()
    terms = losses(model, embeddings, torch.arange(8) % 3, tokenizer_settings)
    (gradient,) = torch.autograd.grad(terms["loss/prefix"], embeddings)
    assert (gradient.norm(dim=-1) > 0).all()


def test_the_residual_loss_pulls_the_embedding_not_the_codebooks(tokenizer_settings):
    model = tokenizer(tokenizer_settings)
    embeddings = model.embed(torch.randn(8, 10)).detach().requires_grad_()
    terms = losses(model, embeddings, torch.arange(8) % 3, tokenizer_settings)
    prefixes = quantizer.decode(model.tokenize(embeddings), model.codebooks)
    (gradient,) = torch.autograd.grad(terms["loss/residual"], embeddings)
    expected = 2 * (embeddings[:, None] - prefixes).sum(1) / prefixes.shape[1] / len(embeddings)
    torch.testing.assert_close(gradient, expected)
    assert not model.codebooks.requires_grad


def test_a_weight_of_one_neither_vanishes_nor_swamps(tokenizer_settings):
    settings = dataclasses.replace(tokenizer_settings, prefix_weight=1.0, residual_weight=1.0)
    model = tokenizer(settings)
    terms = losses(model, model.embed(torch.randn(64, 10)), torch.arange(64) % 3, settings)
    parts = [float(terms[f"loss/{name}"].detach()) for name in ("embedding", "prefix", "residual")]
    assert min(parts) > 0.01 * sum(parts)
    torch.testing.assert_close(float(terms["loss"].detach()), sum(parts))


def test_weights_of_zero_leave_plain_classification(tokenizer_settings):
    settings = dataclasses.replace(tokenizer_settings, prefix_weight=0.0, residual_weight=0.0)
    model = tokenizer(settings)
    terms = losses(model, model.embed(torch.randn(16, 10)), torch.arange(16) % 3, settings)
    assert torch.equal(terms["loss"], terms["loss/embedding"])


def test_a_linear_adapter_starts_with_the_neighbours_of_the_features(tokenizer_settings):
    settings = dataclasses.replace(tokenizer_settings, width=10)
    model, summaries = tokenizer(settings), torch.randn(40, 10)
    model.adapter.start_at_features(summaries)
    embeddings = model.embed(summaries)
    normed = torch.nn.functional.layer_norm(summaries, (10,))
    expected = torch.nn.functional.normalize(normed, dim=-1)
    torch.testing.assert_close(embeddings @ embeddings.T, expected @ expected.T)


def test_an_adapter_with_a_hidden_layer_starts_at_random(tokenizer_settings):
    settings = dataclasses.replace(tokenizer_settings, hidden=8)
    model, summaries = tokenizer(settings), torch.randn(40, 10)
    before = model.embed(summaries)
    model.adapter.start_at_features(summaries)
    assert torch.equal(model.embed(summaries), before)


def test_half_of_a_cosine_is_that_of_the_pretrained_part(tokenizer_settings):
    settings = dataclasses.replace(tokenizer_settings, width=16, pretrained_width=10)
    summaries = torch.randn(40, 10) + 1
    model = tokenizer(settings)
    model.adapter.keep_directions(summaries.numpy())
    embeddings = model.embed(summaries)
    trained = torch.nn.functional.normalize(model.adapter.layers(summaries), dim=-1)
    unit = torch.nn.functional.normalize(summaries, dim=-1)
    kept = torch.nn.functional.normalize(unit - unit.mean(0), dim=-1)
    expected = (trained @ trained.T + kept @ kept.T) / 2
    torch.testing.assert_close(embeddings @ embeddings.T, expected)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(40))


def test_the_pretrained_part_begins_with_the_directions_that_differ_most(tokenizer_settings):
    settings = dataclasses.replace(tokenizer_settings, pretrained_width=1)
    model = tokenizer(settings)
    summaries = torch.ones(40, 10)
    summaries[:, 3] += torch.linspace(-1, 1, 40)
    model.adapter.keep_directions(summaries.numpy())
    assert int(model.adapter.directions.abs().argmax()) == 3


def test_a_pretrained_part_wider_than_the_summary_is_refused(tokenizer_settings):
    settings = dataclasses.replace(tokenizer_settings, width=32, pretrained_width=11)
    with pytest.raises(ParamsError, match=r"pretrained_width: 11 is more than the 10 numbers"):
        tokenizer(settings)


def test_embeddings_with_the_cosines_of_the_features_keep_all_neighbours():
    features = torch.randn(12, 10)
    same = torch.nn.functional.normalize(features, dim=-1)
    assert abs(float(neighbour_loss(same, 3 * features))) < 1e-6
    assert float(neighbour_loss(same.roll(1, 0), features)) > 0.1


def test_features_to_keep_come_first_and_clusters_beside_them(tokenizer_settings):
    settings = dataclasses.replace(tokenizer_settings, cluster_weight=0.5)
    model, inputs = tokenizer(settings), torch.randn(8, 10)
    embeddings, labels = model.embed(inputs), torch.arange(8) % 3
    alone = losses(model, embeddings, labels, settings)
    kept = losses(model, embeddings, labels, settings, inputs)
    torch.testing.assert_close(kept["loss"], kept["loss/neighbours"] + 0.5 * alone["loss"])


def test_an_embedding_does_not_depend_on_the_others(tokenizer_settings):
    model = tokenizer(tokenizer_settings)
    summaries = torch.randn(1500, 10).numpy()
    together = embed_summaries(model, summaries, torch.device("cpu"))
    alone = embed_summaries(model, summaries[1400:1401], torch.device("cpu"))
    assert torch.equal(together[1400:1401], alone)
