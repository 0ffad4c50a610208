"""Train the descriptors of the paper's baselines, CGD and IRT_R."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from irgen.encoding.batches import LabelledImages
from irgen.models.descriptors import CgdHead, DescriptorModel, IrtHead
from irgen.models.encoder import ImageEncoder
from irgen.params.baselines import Baselines, Descriptor
from irgen.training import descriptors, ranking_losses
from irgen.training.run import TrainingRun


@dataclass(frozen=True)
class Recipe:
    """A baseline: its ``settings``, its ``losses`` and a function that creates its head for an
    encoder and a number of classes. ``tokens``: the head needs the encoder's tokens."""

    settings: Descriptor
    losses: descriptors.Losses
    create_head: Callable[[ImageEncoder, int], CgdHead | IrtHead]
    tokens: bool


def list_recipes(settings: Baselines) -> dict[str, Recipe]:
    """Return the trained baselines by name."""
    return {
        "cgd": Recipe(
            settings.cgd,
            ranking_losses.cgd_losses,
            lambda encoder, classes: CgdHead(encoder.token_width, classes, settings.cgd),
            tokens=True,
        ),
        "irt_r": Recipe(
            settings.irt_r,
            ranking_losses.irt_losses,
            lambda encoder, classes: IrtHead(encoder.width, settings.irt_r),
            tokens=False,
        ),
    }


def train_baseline(
    recipe: Recipe, encoder: ImageEncoder, tuned: bool, data: LabelledImages, run: TrainingRun
) -> DescriptorModel:
    """Return a model trained on ``data``, in which every class number occurs. It takes pixels,
    whether or not ``encoder`` is ``tuned``."""
    torch.manual_seed(run.seed)
    head = recipe.create_head(encoder, int(data.labels.max()) + 1)
    model = DescriptorModel(head, encoder if tuned else None)
    descriptors.train(model, data, recipe.losses, recipe.settings, run)
    return DescriptorModel(head, encoder).to(run.machine.device).eval()
