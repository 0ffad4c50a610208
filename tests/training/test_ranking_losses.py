"""CGD and IRT_R on clusters that a human can check."""

import builtins
import dataclasses

import numpy as np
import pytest
import torch

from irgen.checkpoints.resume import Resume
from irgen.checkpoints.weights import create_encoder
from irgen.compute.machine import Machine
from irgen.encoding.batches import EncodedViews, LabelledImages, Pixels
from irgen.errors import ExtraError
from irgen.models.descriptors import CgdHead, DescriptorModel, IrtHead, generalised_mean
from irgen.params import Augment, Encoder
from irgen.params.baselines import Cgd, Irt
from irgen.search.brute_force import brute_force_search
from irgen.training import descriptors, ranking_losses
from irgen.training.run import TrainingRun

CPU = Machine(device=torch.device("cpu"), autocast=None)
SHARED = {
    "width": 12,
    "hidden": 16,
    "dropout": 0.1,
    "steps": 60,
    "batch_size": 16,
    "per_label": 4,
    "learning_rate": 0.01,
    "encoder_learning_rate": 0.001,
    "layer_decay": 1.0,
    "weight_decay": 0.0,
    "warmup": 0.08,
    "margin": 0.2,
}
CGD = Cgd(**SHARED, label_smoothing=0.1, temperature=0.1, class_weight=1.0)
IRT = Irt(**SHARED, koleo=0.1)
LABELS = torch.arange(160) % 8


class KilledError(Exception):
    """Stands for a SIGKILL between two rounds."""


def quiet(metrics, step):
    pass


def killed_after(last):
    def log(metrics, step):
        if step > last:  # the state after step ``last`` is saved, this one's is not
            raise KilledError

    return log


@pytest.fixture(scope="module")
def read() -> tuple[np.ndarray, np.ndarray]:
    """Summaries (160, 1, 20) and tokens (160, 1, 4, 20) around 8 centres, under much noise."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(8, 1, 1, 20))[LABELS.numpy()]
    tokens = centres + 2 * generator.normal(size=(160, 1, 4, 20))
    return (tokens.mean(2)).astype(np.float32), tokens.astype(np.float16)


def made(name):
    torch.manual_seed(0)
    if name == "cgd":
        return DescriptorModel(CgdHead(20, 8, CGD), None), (ranking_losses.cgd_losses, CGD)
    return DescriptorModel(IrtHead(20, IRT), None), (ranking_losses.irt_losses, IRT)


def train(name, read, folder, log=quiet):
    model, goal = made(name)
    half = LabelledImages(EncodedViews(read[0][:80], read[1][:80]), LABELS[:80])
    run = TrainingRun(machine=CPU, seed=0, log=log, resume=Resume(folder, name))
    return model, descriptors.train(model, half, *goal, run)


def precision(model, read):
    """Mean precision at 5 of images that were not trained on, among those that were."""
    with torch.inference_mode():
        vectors = model.eval()(*EncodedViews(*read).plain(torch.arange(160)))
    nearest = brute_force_search(vectors[80:], vectors[:80], 5).ids
    return (LABELS[:80][nearest] == LABELS[80:, None]).float().mean().item()


@pytest.mark.parametrize("name", ["cgd", "irt_r"])
def test_a_descriptor_learns_what_an_untrained_one_does_not_tell(name, read, tmp_path):
    untrained, _ = made(name)
    logged = []
    model, history = train(name, read, tmp_path, lambda row, step: logged.append(step))
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert precision(model, read) > precision(untrained, read) + 0.1 > 1 / 8 + 0.1
    assert logged == list(range(5, 61, 5))  # passes of 80 images in batches of 16


@pytest.mark.parametrize("name", ["cgd", "irt_r"])
def test_a_killed_training_ends_as_an_unbroken_one(name, read, tmp_path):
    whole, history = train(name, read, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(name, read, tmp_path / "broken", killed_after(20))
    steps = []
    resumed, again = train(name, read, tmp_path / "broken", lambda row, step: steps.append(step))
    assert steps[0] == 25 and again == history
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", ["cgd", "irt_r"])
def test_an_encoder_is_tuned_with_its_head(name, tmp_path):
    config = Encoder(
        name="resnet10t",
        weights="none",
        image_size=16,
        channels=1,
        crop=1.0,
        options={"channels": [8, 8, 16, 24], "stem_width": 8},
    )
    none = Augment(views=1, scale=0, rotate=0, shear=0, shift=0.1, flip=False, colour=0, erase=0)
    encoder, first = create_encoder(config, 0), create_encoder(config, 0).state_dict()
    torch.manual_seed(0)
    if name == "cgd":
        head = CgdHead(encoder.token_width, 8, CGD)
        goal = ranking_losses.cgd_losses, dataclasses.replace(CGD, steps=16)
    else:
        head = IrtHead(encoder.width, IRT)
        goal = ranking_losses.irt_losses, dataclasses.replace(IRT, steps=16)
    patterns = np.random.default_rng(0).integers(0, 256, (8, 1, 16, 16))
    images = np.clip(patterns[LABELS.numpy()[:64]], 0, 255).astype(np.uint8)
    model = DescriptorModel(head, encoder)
    data = LabelledImages(Pixels(images, 16, none), LABELS[:64])
    run = TrainingRun(machine=CPU, seed=0, log=quiet)
    history = descriptors.train(model, data, *goal, run)
    assert history[-1]["loss"] < history[0]["loss"]
    assert any(not torch.equal(first[key], value) for key, value in encoder.state_dict().items())


def test_a_batch_holds_several_images_of_each_of_its_labels_and_every_image_comes_once():
    order = descriptors.balanced(LABELS, 4, torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(160))
    for rows in order.split(16):
        assert LABELS[rows].bincount()[LABELS[rows]].min() >= 4
    again = descriptors.balanced(LABELS, 4, torch.Generator().manual_seed(0))
    assert torch.equal(order, again)


def test_labels_of_one_image_each_still_give_a_loss_that_can_be_followed():
    for model, (losses, settings), inputs in (
        (*made("cgd"), (torch.randn(6, 20), torch.randn(6, 4, 20))),
        (*made("irt_r"), (torch.randn(6, 20), torch.randn(6, 4, 20))),
    ):
        terms = losses(model.head, model(*inputs), torch.arange(6), settings)
        terms["loss"].backward()
        assert torch.isfinite(terms["loss"])


def test_the_combined_descriptor_is_mean_power_mean_and_maximum_each_by_its_own_map():
    torch.manual_seed(0)
    settings, tokens = dataclasses.replace(CGD, width=7), torch.rand(2, 9, 5)
    head = CgdHead(5, 3, settings).eval()
    descriptors = head(torch.zeros(2, 1), tokens)
    cubes = (tokens**3).mean(1) ** (1 / 3)
    parts = zip((tokens.mean(1), cubes, tokens.max(1)[0]), head.branches, strict=True)
    mapped = [branch(part) / branch(part).norm(dim=1, keepdim=True) for part, branch in parts]
    torch.testing.assert_close(descriptors, torch.cat(mapped, dim=1) / 3**0.5)
    assert [part.shape[1] for part in mapped] == [3, 2, 2]
    torch.testing.assert_close(
        head.classify(descriptors) * CGD.temperature,
        mapped[0] @ (head.classes.weight / head.classes.weight.norm(dim=1, keepdim=True)).T,
    )


def test_the_generalised_mean_goes_from_the_mean_to_the_maximum_and_never_breaks():
    tokens = torch.rand(3, 9, 5).requires_grad_()
    torch.testing.assert_close(generalised_mean(tokens, torch.tensor(1.0)), tokens.mean(1))
    high = generalised_mean(tokens, torch.tensor(80.0))
    assert (tokens.amax(1) - high).abs().max() < 0.05
    (generalised_mean(tokens - 2, torch.tensor(20.0)).sum() + high.sum()).backward()
    assert torch.isfinite(tokens.grad).all()


def test_the_entropy_term_is_lowest_where_vectors_are_spread_evenly():
    circle = torch.arange(8) * torch.pi / 4
    even = torch.stack([circle.cos(), circle.sin()], 1)
    crowded = torch.nn.functional.normalize(even + torch.tensor([2.0, 0.0]), dim=1)
    assert ranking_losses.koleo_loss(even) < ranking_losses.koleo_loss(crowded)


def test_the_missing_library_is_one_error_that_names_what_to_install(monkeypatch):
    whole = builtins.__import__

    def without(name, *rest):
        if name.startswith("pytorch_metric_learning"):
            raise ImportError(f"No module named {name!r}", name="pytorch_metric_learning")
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExtraError, match=r"^pytorch-metric-learning is not.*'.\[compare\]'$"):
        ranking_losses.contrastive_loss(torch.eye(2), torch.tensor([0, 1]), 0.5)
