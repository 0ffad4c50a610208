"""Train descriptors by ranking losses, on batches in which labels come several times."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from irgen.checkpoints.resume import History, TrainingState
from irgen.compute.seeds import seed_everything
from irgen.encoding.batches import LabelledImages
from irgen.models.descriptors import DescriptorModel
from irgen.params.baselines import Descriptor as Settings
from irgen.training.optimizer import create_optimizer, set_rates
from irgen.training.run import (
    RoundMeans,
    TrainingRun,
    draw_batches,
    remaining_rounds,
    round_length,
    show_progress,
)

VERSION = 3  # raise when a training gives other descriptors
Losses = Callable[..., dict[str, Tensor]]  # of (head, embeddings, labels, settings)


def train(
    model: DescriptorModel,
    data: LabelledImages,
    losses: Losses,
    settings: Settings,
    run: TrainingRun,
) -> History:
    """Train ``model`` in place and return one row of metrics a round, which is a pass over all
    images."""
    device, labels = run.machine.device, data.labels
    model.to(device)
    adam = create_optimizer(model.encoder, model.head.parameters(), settings)
    state = TrainingState(modules={"model": model}, optimizer=adam)
    run.restore(state)
    size, order = settings.batch_size, partial(balanced, labels, settings.per_label)
    length = round_length(len(labels), size)
    for steps in remaining_rounds(state.history, settings.steps, length):
        generator = seed_everything(run.seed, steps.start)
        model.train()
        means = RoundMeans("learning_rate in baselines", steps)
        drawn = draw_batches(steps, len(labels), size, run.seed, order)
        batches = data.images.prefetch(drawn)
        title = type(model.head).__name__
        for step, rows in show_progress(batches, title, steps, settings.steps):
            set_rates(adam, step, settings)
            inputs = [part.to(device) for part in data.images.training(rows, generator)]
            with run.machine.precision():
                embeddings = model(*inputs)
            values = losses(model.head, embeddings, labels[rows].to(device), settings)
            adam.zero_grad()
            values["loss"].backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            means.add(values, len(rows), norm)
        state.history.append({"step": steps.stop, **means.row()})
        run.end_round(state)
    return state.history


def balanced(labels: Tensor, per_label: int, generator: torch.Generator) -> Tensor:
    """Return rows (N,) in random order, ``per_label`` images of a label together as far as there
    are so many.

    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    >>> rows = balanced(labels, 2, torch.Generator().manual_seed(0))
    >>> bool((labels[rows][0::2] == labels[rows][1::2]).all())
    True
    """
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # by label, at random within each
    counts = labels.unique(return_counts=True)[1].tolist()
    groups = [group for part in order.split(counts) for group in part.split(per_label)]
    shuffle = torch.randperm(len(groups), generator=generator).tolist()
    return torch.cat([groups[i] for i in shuffle])
