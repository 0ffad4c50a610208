"""Train descriptors by ranking losses, on batches in which labels come several times."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from irgen.checkpoints.resume import History, TrainingState
from irgen.compute import seed_everything
from irgen.encoding.batches import LabelledImages
from irgen.models.descriptors import DescriptorModel
from irgen.params.baselines import Descriptor as Settings
from irgen.training.optimizer import create_optimizer, set_rates
from irgen.training.run import EpochMeans, TrainingRun, show_progress

VERSION = 1  # raise when a training gives other descriptors
Losses = Callable[..., dict[str, Tensor]]  # of (head, embeddings, labels, settings)


def train(
    model: DescriptorModel,
    data: LabelledImages,
    losses: Losses,
    settings: Settings,
    run: TrainingRun,
) -> History:
    """Train ``model`` in place, an image once an epoch, and return one row of metrics an epoch."""
    device, labels = run.machine.device, data.labels
    model.to(device)
    adam = create_optimizer(model.encoder, model.head.parameters(), settings)
    state = TrainingState(modules={"model": model}, optimizer=adam)
    run.restore(state)
    steps = -(-len(labels) // settings.batch_size)
    for epoch in range(len(state.history), settings.epochs):
        generator = seed_everything(run.seed, epoch)
        model.train()
        means = EpochMeans()
        batches = balanced(labels, settings.batch_size, settings.per_label, generator)
        title = f"{type(model.head).__name__} epoch {epoch + 1}"
        bar = show_progress(batches, title, steps)
        for step, rows in enumerate(bar, start=epoch * steps):
            set_rates(adam, step, settings.warmup_epochs * steps, settings.epochs * steps)
            inputs = [part.to(device) for part in data.images.training(rows, generator)]
            with run.machine.precision():
                embeddings = model(*inputs)
            values = losses(model.head, embeddings, labels[rows].to(device), settings)
            adam.zero_grad()
            values["loss"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            means.add(values, len(rows))
        state.history.append({"epoch": epoch + 1, **means.row()})
        run.end_epoch(state)
    return state.history


def balanced(
    labels: Tensor, size: int, per_label: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield rows 0 … N − 1 in batches of at most ``size``, ``per_label`` images of a label together
    as far as there are so many; each row once, a last batch of one left out.

    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    >>> (rows,) = balanced(labels, 8, 2, torch.Generator().manual_seed(0))
    >>> bool((labels[rows][0::2] == labels[rows][1::2]).all())
    True
    """
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # by label, at random within each
    counts = labels.unique(return_counts=True)[1].tolist()
    groups = [group for part in order.split(counts) for group in part.split(per_label)]
    shuffle = torch.randperm(len(groups), generator=generator).tolist()
    for rows in torch.cat([groups[i] for i in shuffle]).split(size):
        if len(rows) > 1:
            yield rows
