"""Trains descriptors by ranking losses, on batches in which labels come several times."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from irgen.checkpoints import tensor_file
from irgen.compute import Machine, seed_everything
from irgen.encoding.batches import EncodedViews, Pixels
from irgen.models.descriptors import Described
from irgen.params.baselines import Descriptor as Settings
from irgen.training import optimizer

Log = Callable[[dict[str, float], int], None]
History = list[dict[str, float]]
Losses = Callable[..., dict[str, Tensor]]  # of (head, embeddings, labels, settings)


def train(
    model: Described,
    data: tuple[EncodedViews | Pixels, Tensor],
    goal: tuple[Losses, Settings],
    run: tuple[Machine, int],
    resume: tensor_file.Resume,
    log: Log,
) -> History:
    """Gradient steps, an image once an epoch. ``data`` = (images, their class numbers (N,));
    ``goal`` = (losses, their settings); ``run`` = (machine, seed). ``model`` is trained in place.
    Returns one row of metrics an epoch; each is also given to ``log``."""
    (images, labels), (losses, settings), (machine, seed) = data, goal, run
    model.to(machine.device)
    rates = (settings.encoder_learning_rate, settings.learning_rate)
    adam = optimizer.adamw(
        optimizer.groups(
            model.encoder, [model.head], rates, settings.layer_decay, settings.weight_decay
        )
    )
    history = _resume(model, adam, resume)
    steps = -(-len(labels) // settings.batch_size)
    for epoch in range(len(history), settings.epochs):
        generator = seed_everything(seed, epoch)
        model.train()
        sums: dict[str, float] = defaultdict(float)
        batches = list(balanced(labels, settings.batch_size, settings.per_label, generator))
        title = f"{type(model.head).__name__.lower()} epoch {epoch + 1}"
        bar = tqdm(batches, title, leave=False, disable=None, unit="batch")
        for i, rows in enumerate(bar, start=epoch * steps):
            optimizer.set_rates(adam, i, settings.warmup_epochs * steps, settings.epochs * steps)
            inputs = [part.to(machine.device) for part in images.training(rows, generator)]
            with machine.precision():
                embeddings = model(*inputs)
            found = losses(model.head, embeddings, labels[rows].to(machine.device), settings)
            adam.zero_grad()
            found["loss"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            for name, value in found.items():
                sums[name] += float(value.detach()) * len(rows)
        row = {name: value / sum(map(len, batches)) for name, value in sums.items()}
        history.append({"epoch": epoch + 1, **row})
        log(row, epoch + 1)
        state = tensor_file.prefixed(model.state_dict(), "model.")
        resume.save(state | tensor_file.optimizer_tensors(adam), history)
    return history


def balanced(
    labels: Tensor, size: int, per_label: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Rows 0 … N − 1 in batches of ``size`` at most, in which ``per_label`` images of a label come
    together as far as there are so many; each row once, a last batch of one left out.

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


def _resume(model: Described, adam: torch.optim.Optimizer, resume: tensor_file.Resume) -> History:
    """Restores an interrupted training; an empty history where there is none."""
    kept = resume.load()
    if kept is None:
        return []
    tensors, history = kept
    tensor_file.load_into(model, tensor_file.unprefixed(tensors, "model."), resume.path)
    tensor_file.restore_optimizer(adam, tensors)
    tqdm.write(f"{type(model.head).__name__.lower()}: going on after epoch {len(history)}")
    return history
