"""Trains the retriever: read an image, write the identifier of one of its neighbours."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from irgen.checkpoints import tensor_file
from irgen.compute import Machine, seed_everything
from irgen.encoding.batches import EncodedViews, Pixels, full_batches, shuffled
from irgen.models import decoder as retrieval
from irgen.models.retriever import Retriever
from irgen.params import Retriever as Settings
from irgen.search import beam, rank, trie
from irgen.search.decoder import Decoder
from irgen.search.snapshot import Snapshot
from irgen.training import optimizer

Log = Callable[[dict[str, float], int], None]
History = list[dict[str, float]]
BEAMS = 10  # of the validation search
CUTOFF = 10


@dataclass(frozen=True)
class Pairs:
    """Training images, their codes (N, M) and neighbours: those of image i are
    ``positives[offsets[i]:offsets[i + 1]]``; an image may have none."""

    images: EncodedViews | Pixels
    codes: Tensor
    positives: Tensor
    offsets: Tensor

    def anchors(self) -> Tensor:
        """Rows (A,) of the images that have a neighbour."""
        return torch.nonzero(self.offsets.diff() > 0).flatten()

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The codes (B, M) of one random neighbour of each image ``rows`` (B,)."""
        first, end = self.offsets[rows], self.offsets[rows + 1]
        pick = (
            torch.rand(len(rows), generator=generator, dtype=torch.float64) * (end - first)
        ).long()
        return self.codes[self.positives[first + pick]]


@dataclass(frozen=True)
class Held:
    """Validation queries, their class numbers (Q,), and those of the training images (N,)."""

    images: EncodedViews | Pixels
    labels: Tensor
    training_labels: Tensor


def train(
    model: Retriever,
    data: tuple[Pairs, Held],
    settings: Settings,
    run: tuple[Machine, int],
    resume: tensor_file.Resume,
    log: Log,
) -> History:
    """Cross-entropy on the codes of drawn neighbours; the weights kept are the moving average that
    retrieved best on the validation queries (precision@10), or the last one where there are none.

    ``run`` = (machine, seed). ``model`` is trained in place. Returns one row of metrics an epoch.
    """
    (pairs, held), (machine, seed) = data, run
    model.to(machine.device)
    average = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True
    )
    averaged = average.module
    assert isinstance(averaged, Retriever), "the average is of the model"
    adam = optimizer.adamw(
        optimizer.groups(
            model.query_encoder,
            [model.decoder],
            (settings.encoder_learning_rate, settings.learning_rate),
            settings.layer_decay,
            settings.weight_decay,
        )
    )
    trained = [p for group in adam.param_groups for p in group["params"]]
    database = _database(pairs.codes, machine)
    anchors = pairs.anchors()
    best, history = _resume(model, average, adam, resume)
    steps = -(-len(anchors) // settings.batch_size)
    for epoch in range(len(history), settings.epochs):
        if _exhausted(history, settings.patience):
            break
        generator = seed_everything(seed, epoch)
        model.train()
        sums: dict[str, float] = defaultdict(float)
        batches = shuffled(len(anchors), settings.batch_size, generator)
        bar = tqdm(
            batches, f"retriever epoch {epoch + 1}", steps, leave=False, disable=None, unit="batch"
        )
        for i, picked in enumerate(bar, start=epoch * steps):
            optimizer.set_rates(adam, i, settings.warmup_epochs * steps, settings.epochs * steps)
            rows = anchors[picked]
            inputs = [part.to(machine.device) for part in pairs.images.training(rows, generator)]
            targets = pairs.draw(rows, generator).to(machine.device)  # (B, M)
            with machine.precision():
                logits = model(inputs, targets)
            loss = retrieval.loss(logits.float(), targets, settings.label_smoothing)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, settings.gradient_clip)
            adam.step()
            average.update_parameters(model)
            sums["loss"] += float(loss.detach()) * len(rows)
            right = (logits.argmax(-1) == targets).float().sum(0)
            for level, hits in enumerate(right.tolist()):
                sums[f"accuracy/level_{level + 1}"] += hits
        row = {name: value / len(anchors) for name, value in sums.items()}
        row["learning_rate"] = adam.param_groups[0]["lr"]
        last = epoch + 1 == settings.epochs
        if len(held.images) and (last or (epoch + 1) % settings.validate_every == 0):
            row["validation/precision/10"] = validate(averaged, held, database, machine)
        history.append({"epoch": epoch + 1, **row})
        log(row, epoch + 1)
        if _is_best(history):
            best = {n: t.clone() for n, t in averaged.state_dict().items()}
        _keep(model, average, adam, best, history, resume)
    model.load_state_dict(best)
    return history


def _is_best(history: History) -> bool:
    """Whether the last epoch's average is the one to keep: it validated best, or nothing
    validates."""
    scores = [row.get("validation/precision/10", -1.0) for row in history]
    return scores[-1] > max(scores[:-1], default=-1.0) or max(scores) < 0


def _exhausted(history: History, patience: int) -> bool:
    """Whether the last ``patience`` validations brought no gain."""
    scores = [r["validation/precision/10"] for r in history if "validation/precision/10" in r]
    return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])


def _keep(
    model: Retriever,
    average: AveragedModel,
    adam: torch.optim.Optimizer,
    best: dict[str, Tensor],
    history: History,
    resume: tensor_file.Resume,
) -> None:
    state = tensor_file.optimizer_tensors(adam)
    state |= tensor_file.prefixed(model.state_dict(), "model.")
    state |= tensor_file.prefixed(average.state_dict(), "average.")
    resume.save(state | tensor_file.prefixed(best, "best."), history)


def _resume(
    model: Retriever,
    average: AveragedModel,
    adam: torch.optim.Optimizer,
    resume: tensor_file.Resume,
) -> tuple[dict[str, Tensor], History]:
    """Restores an interrupted training: its best weights so far and its history, empty if none."""
    kept = resume.load()
    if kept is None:
        return {}, []
    tensors, history = kept
    tensor_file.load_into(model, tensor_file.unprefixed(tensors, "model."), resume.path)
    tensor_file.load_into(average, tensor_file.unprefixed(tensors, "average."), resume.path)
    tensor_file.restore_optimizer(adam, tensors)
    tqdm.write(f"retriever: going on after epoch {len(history)}")
    return tensor_file.unprefixed(tensors, "best."), history


@torch.inference_mode()
def validate(model: Retriever, held: Held, database: Snapshot, machine: Machine) -> float:
    """Mean precision@10 of generative search for the validation queries among the training images.

    Images of one bucket come in order of row: their tuned embeddings are not needed to compare
    epochs.
    """
    model.eval()
    decoder, parts = Decoder(model.decoder, machine.decoder), database.parts(fresh=False)
    hits = 0.0
    for rows, new in full_batches(len(held.images), 64):
        inputs = [part.to(machine.device) for part in held.images.plain(rows)]
        with machine.precision():
            writing = decoder.start(*model.encode(inputs))
        beams = beam.search(writing, [part.live for part in parts], BEAMS)
        found = rank.gather(database, parts, beams, CUTOFF)
        ids = found.rows[:new, :CUTOFF].cpu()
        right = held.training_labels[ids.clamp_min(0)] == held.labels[rows[:new], None]
        hits += float((right & (ids >= 0)).sum()) / CUTOFF
    return hits / len(held.images)


def _database(codes: Tensor, machine: Machine) -> Snapshot:
    """The training images as a database without embeddings: codes (N, M)."""
    nothing, prefixes = torch.empty(len(codes), 0), trie.build(codes).to(machine.device)
    arrays = (part.to(machine.device) for part in (codes, nothing, nothing))
    return Snapshot.fixed(prefixes, *arrays)
