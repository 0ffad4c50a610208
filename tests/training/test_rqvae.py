"""The residual-quantised autoencoder on features whose structure is known."""

import pytest
import torch

from irgen.compute.machine import Machine
from irgen.models import quantizer, rqvae
from irgen.params import Identifiers
from irgen.training import rqvae as autoencoding
from irgen.training.run import TrainingRun

CPU = Machine(device=torch.device("cpu"), autocast=None)
PASS = 13  # steps over 400 images in batches of 32

SETTINGS = Identifiers(
    rule="rqvae",
    rqvae_hidden=32,
    rqvae_width=6,
    rqvae_steps=20 * PASS,
    rqvae_batch_size=32,
    rqvae_learning_rate=2e-3,
    rqvae_commitment=0.25,
)


def quiet(row, step):
    pass


def run_logging(log) -> TrainingRun:
    return TrainingRun(machine=CPU, seed=0, log=log)


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    """Sums of one of 8 coarse and one of 8 fine parts, (400, 12)."""
    generator = torch.Generator().manual_seed(0)
    coarse, fine = torch.randn(8, 12, generator=generator), torch.randn(8, 12, generator=generator)
    picks = torch.randint(8, (2, 400), generator=generator)
    noise = torch.randn(400, 12, generator=generator)
    return 3 + 2 * coarse[picks[0]] + 0.7 * fine[picks[1]] + 0.05 * noise


@pytest.fixture(scope="module")
def trained(features) -> tuple[rqvae.Autoencoder, list[dict[str, float]]]:
    history: list[dict[str, float]] = []
    log = lambda row, step: history.append(row)  # noqa: E731
    return autoencoding.train(features, (3, 8), SETTINGS, run_logging(log)), history


def test_each_level_takes_something_off_the_reconstruction_error(trained, features):
    errors = rqvae.reconstruction_errors(trained[0], features)
    assert (errors.diff() < 0).all()
    assert errors[0] < 0.5 and errors[-1] < 0.1  # 1 is what the mean alone gets wrong


def test_training_lowers_the_reconstruction_error_and_logs_every_pass(trained, features):
    model, history = trained
    assert len(history) == 20
    assert history[-1]["loss/reconstruction"] < 0.3 * history[0]["loss/reconstruction"]
    generator = torch.Generator().manual_seed(0)
    assert len(rqvae.encode(model, features)[:, 0].unique()) == 8
    held_out = features + 0.01 * torch.randn(features.shape, generator=generator)
    assert rqvae.reconstruction_errors(model, held_out)[-1] < 0.1


def test_equal_seeds_give_equal_codes_and_no_image_depends_on_the_others(trained, features):
    model, _ = trained
    again = autoencoding.train(features, (3, 8), SETTINGS, run_logging(quiet))
    codes = rqvae.encode(model, features)
    assert torch.equal(rqvae.encode(again, features), codes)
    assert torch.equal(rqvae.encode(model, features[5:9]), codes[5:9])


def test_entries_are_residual_and_the_losses_are_what_they_say(trained, features):
    model, _ = trained
    terms = rqvae.losses(model, features[:40], 0.25)
    books = model.codebooks.detach()
    latents = rqvae.encode_latents(model, features[:40])
    assert torch.equal(terms["codes"], quantizer.encode(latents, books))
    wanted, left = 0.0, latents
    for level, book in enumerate(books):
        left = left - book[terms["codes"][:, level]]
        wanted += float(left.square().sum(1).mean())
    for name in ("loss/codebook", "loss/commitment"):
        assert float(terms[name].detach()) == pytest.approx(wanted, rel=1e-4)
    rebuilt = rqvae.reconstruction_errors(model, features[:40])[-1]
    assert float(terms["loss/reconstruction"].detach()) == pytest.approx(float(rebuilt), rel=1e-4)
    total = terms["loss/reconstruction"].detach() + 1.25 * wanted
    assert float(terms["loss"].detach()) == pytest.approx(float(total), rel=1e-4)


def test_gradients_go_straight_through_the_codes_to_the_encoder(trained, features):
    model, _ = trained
    terms = rqvae.losses(model, features[:40], 0.25)
    (alone,) = torch.autograd.grad(
        terms["loss/reconstruction"], model.encoder[0].weight, retain_graph=True
    )
    assert alone.abs().sum() > 0
    (pulled,) = torch.autograd.grad(
        terms["loss/codebook"], model.encoder[0].weight, retain_graph=True, allow_unused=True
    ) or (None,)
    assert pulled is None  # that loss moves entries alone
    (moved,) = torch.autograd.grad(terms["loss/commitment"], model.codebooks, allow_unused=True)
    assert moved is None or not moved.abs().sum()


def test_an_entry_that_no_image_has_begins_again(features):
    history: list[dict[str, float]] = []
    settings = Identifiers(
        **{**vars(SETTINGS), "rqvae_steps": 6 * PASS, "rqvae_learning_rate": 0.05}
    )
    run = run_logging(lambda row, step: history.append(row))
    model = autoencoding.train(features, (2, 32), settings, run)
    assert sum(row["restarts"] for row in history) > 0
    assert history[-1]["restarts"] == 0  # nothing learns from a restart at the end
    assert model.codebooks.isfinite().all()
