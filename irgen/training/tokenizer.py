"""Trains the tokenizer: gradient steps on the network, residual k-means on the codebooks, in
turn."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from irgen.checkpoints import tensor_file
from irgen.compute import Machine, seed_everything
from irgen.encoding.batches import EncodedViews, Pixels, full_batches, shuffled
from irgen.models import clusters, quantizer
from irgen.models.tokenizer import Tokenizer, losses
from irgen.params import Tokenizer as Settings
from irgen.training import optimizer

Log = Callable[[dict[str, float], int], None]
History = list[dict[str, float]]


@dataclass(frozen=True)
class Labelled:
    """Images to read and their class numbers (N,) int64; −1 is a label training never saw. With
    labels: clusters the numbers are those that training begins with, and unread of validation."""

    images: EncodedViews | Pixels
    labels: Tensor


def train(
    model: Tokenizer,
    data: tuple[Labelled, Labelled],
    settings: Settings,
    run: tuple[Machine, int],
    resume: tensor_file.Resume,
    log: Log,
) -> History:
    """Alternating optimisation (paper, section 3.1): an epoch of gradient steps against fixed
    codebooks, then all codebooks refitted to the whole training set; so the codes fit the final
    network too.

    With ``labels: clusters`` the classes are clusters (DeepCluster's idea): whenever codebooks are
    refitted, and training goes on, the tuned embeddings are clustered anew, and a new cluster takes
    the number of the old one it shares most images with. Validation accuracies are then left out:
    there is nothing true to compare with, and no label is looked at.

    ``data`` = (training, validation), the latter may be empty; ``run`` = (machine, seed). ``model``
    is trained in place. Returns one row of metrics an epoch; each is also given to ``log``.
    """
    (training, validation), (machine, seed) = data, run
    model.to(machine.device)
    adam = optimizer.adamw(
        optimizer.groups(
            model.encoder,
            [model.adapter, _Holder(model.classes)],
            (settings.encoder_learning_rate, settings.learning_rate),
            settings.layer_decay,
            settings.weight_decay,
        )
    )
    labels, history = _resume(model, adam, resume, training.labels)
    if not history:
        _refit(model, training, settings, (machine, seed), first=True)
    steps = -(-len(training.images) // settings.batch_size)
    for epoch in range(len(history), settings.epochs):
        generator = seed_everything(seed, epoch)
        model.train()
        sums: dict[str, float] = defaultdict(float)
        batches = shuffled(len(training.images), settings.batch_size, generator)
        bar = tqdm(
            batches, f"tokenizer epoch {epoch + 1}", steps, leave=False, disable=None, unit="batch"
        )
        for i, rows in enumerate(bar, start=epoch * steps):
            optimizer.set_rates(adam, i, settings.warmup_epochs * steps, settings.epochs * steps)
            (inputs, *_) = training.images.training(rows, generator)
            with machine.precision():
                embeddings = model.embed(inputs.to(machine.device))
            found = losses(model, embeddings, labels[rows].to(machine.device), settings)
            adam.zero_grad()
            found["loss"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            for name, value in found.items():
                sums[name] += float(value.detach()) * len(rows)
        row = {name: value / len(training.images) for name, value in sums.items()}
        last = epoch + 1 == settings.epochs
        if (epoch + 1) % settings.refit_epochs == 0 or last:
            spread, embeddings = _refit(
                model, training, settings, (machine, seed + epoch + 1), first=False
            )
            row |= spread
            if settings.labels == "given":
                row |= _validate(model, validation, settings, machine)
            elif not last:
                labels, kept = _reclustered(embeddings, labels, settings, seed + epoch + 1)
                row["clusters_kept"] = kept
        history.append({"epoch": epoch + 1, **row})
        log(row, epoch + 1)
        state = tensor_file.prefixed(model.state_dict(), "model.") | {"labels": labels}
        resume.save(state | tensor_file.optimizer_tensors(adam), history)
    return history


class _Holder(nn.Module):
    """A lone parameter as a module, for the optimiser's groups."""

    def __init__(self, parameter: nn.Parameter):
        super().__init__()
        self.parameter = parameter


def _reclustered(
    embeddings: Tensor, labels: Tensor, settings: Settings, seed: int
) -> tuple[Tensor, float]:
    """Clusters (N,) of the embeddings (N, D) as they are now, numbered by those ``labels`` (N,) of
    before, and the share of images that keep theirs."""
    found = clusters.cluster(embeddings, settings.clusters, settings.kmeans_iterations, seed)
    found = clusters.renumbered(found, labels, settings.clusters)
    return found, float((found == labels).double().mean())


def _resume(
    model: Tokenizer, adam: torch.optim.Optimizer, resume: tensor_file.Resume, labels: Tensor
) -> tuple[Tensor, History]:
    """Restores an interrupted training: its class numbers and its history; ``labels`` and an empty
    one where there is none."""
    kept = resume.load()
    if kept is None:
        return labels, []
    tensors, history = kept
    tensor_file.load_into(model, tensor_file.unprefixed(tensors, "model."), resume.path)
    tensor_file.restore_optimizer(adam, tensors)
    tqdm.write(f"tokenizer: going on after epoch {len(history)}")
    return tensors["labels"], history


@torch.inference_mode()
def embed_all(
    model: Tokenizer, images: EncodedViews | Pixels, batch_size: int, machine: Machine
) -> Tensor:
    """Unit embeddings (N, D) of the plain views, in eval mode, on the CPU."""
    model.eval()
    parts = []
    for rows, new in full_batches(len(images), batch_size):
        with machine.precision():
            parts.append(model.embed(images.plain(rows)[0].to(machine.device))[:new].float().cpu())
    return torch.cat(parts) if parts else torch.empty(0, model.codebooks.shape[2])


def _refit(
    model: Tokenizer, data: Labelled, settings: Settings, run: tuple[Machine, int], first: bool
) -> tuple[dict[str, float], Tensor]:
    """Residual k-means over all training embeddings, from k-means++ starts at first, then from the
    codebooks as they are. ``run`` = (machine, seed). Returns how the codes spread, and the
    embeddings (N, D)."""
    machine, seed = run
    embeddings = embed_all(model, data.images, settings.batch_size, machine)
    shape = (settings.levels, settings.codebook)
    start = None if first else model.codebooks.cpu()
    codebooks, restarts = quantizer.fit(embeddings, start, shape, settings.kmeans_iterations, seed)
    model.codebooks.copy_(codebooks.to(machine.device))
    found = quantizer.usage(quantizer.encode(embeddings, codebooks), settings.codebook)
    return found | {"restarts": float(restarts)}, embeddings


@torch.inference_mode()
def _validate(
    model: Tokenizer, validation: Labelled, settings: Settings, machine: Machine
) -> dict[str, float]:
    """Accuracies of the embedding and of every prefix on validation images of classes that are
    taught; nothing if there are none."""
    known = validation.labels >= 0
    if not known.any():
        return {}
    embeddings = embed_all(model, validation.images, settings.batch_size, machine)[known]
    labels = validation.labels[known].to(machine.device)
    scores = losses(model, embeddings.to(machine.device), labels, settings)
    return {f"validation/{name}": float(v) for name, v in scores.items() if "accuracy" in name}
