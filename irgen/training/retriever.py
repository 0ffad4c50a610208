"""Train the retriever: from a query image, predict the code sequence of one of its neighbours."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from irgen.checkpoints.resume import History, TrainingState
from irgen.compute.machine import Machine
from irgen.compute.seeds import seed_everything, seeded_generator
from irgen.encoding.batches import EncodedViews, LabelledImages, Pixels, read_in_order
from irgen.models.decoder import loss
from irgen.models.retriever import Retriever
from irgen.params import Retriever as Settings
from irgen.search import beam, rank, trie
from irgen.search.decoder import Decoder
from irgen.search.snapshot import Snapshot
from irgen.training.optimizer import create_optimizer, set_rates
from irgen.training.run import (
    RoundMeans,
    TrainingRun,
    draw_batches,
    is_best,
    remaining_rounds,
    round_length,
    show_progress,
)
from irgen.training.targets import soften
from irgen.training.word_queries import WordQueries

VERSION = 4  # raise when a training gives another retriever
PRECISION, AGREEMENT = "validation/precision/10", "validation/agreement/10"
BEAMS, CUTOFF = 10, 10  # of the validation search


@dataclass(frozen=True)
class Pairs:
    """Training images, their codes (N, M) and neighbours: those of image i are
    ``positives[offsets[i]:offsets[i + 1]]``; an image may have none."""

    images: EncodedViews | Pixels
    codes: Tensor
    positives: Tensor
    offsets: Tensor

    def anchors(self) -> Tensor:
        """Return the rows (A,) of images that have a neighbour."""
        return torch.nonzero(self.offsets.diff() > 0).flatten()

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return the codes (B, M) of one random neighbour of each image ``rows`` (B,)."""
        first, end = self.offsets[rows], self.offsets[rows + 1]
        shares = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        return self.codes[self.positives[first + (shares * (end - first)).long()]]

    def soften(self, rows: Tensor, drawn: Tensor, size: int) -> Tensor:
        """Return the targets (B, M, L) of images ``rows`` (B,) with the ``drawn`` codes (B, M):
        what all neighbours say about the next of ``size`` codes (L)."""
        first, end = self.offsets[rows, None], self.offsets[rows + 1, None]
        numbers = first + torch.arange(int((end - first).max()))  # (B, k)
        matches = self.codes[self.positives[torch.minimum(numbers, end - 1)]]  # (B, k, M)
        return soften(drawn, matches, numbers < end, size)


def group_positives(anchors: Tensor, positives: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the positives (A,) of pairs sorted by anchor (A,), and offsets (``count`` + 1,): those
    of image i are ``positives[offsets[i]:offsets[i + 1]]``."""
    return positives, torch.searchsorted(anchors, torch.arange(count + 1))


@dataclass(frozen=True)
class Validation:
    """Validation queries with their class numbers, and those of the training images (N,).

    ``nearest`` (V, k): without labels, the training images that are nearest to each query.
    """

    queries: LabelledImages
    training_labels: Tensor
    nearest: Tensor | None = None

    def count_hits(self, rows: Tensor, neighbours: Tensor) -> int:
        """Count the ``neighbours`` (Q, k) of the queries ``rows`` (Q,) that have their label, or
        are nearest to them; −1 is none."""
        if self.nearest is None:
            labels = self.training_labels[neighbours.clamp_min(0)]
            same = labels == self.queries.labels[rows, None]
        else:
            same = (neighbours[:, :, None] == self.nearest[rows][:, None]).any(-1)
        return int((same & (neighbours >= 0)).sum())


def train(
    model: Retriever,
    pairs: Pairs,
    validation: Validation,
    settings: Settings,
    run: TrainingRun,
    words: WordQueries | None = None,
) -> History:
    """Train ``model`` in place on the codes of neighbours (paper, section 3.2), and on queries in
    ``words`` if the images have texts. A neighbour is drawn; at each level the codes of all
    neighbours that share its prefix are the target.

    The weights kept are the moving average that retrieved best on the validation queries
    (precision@10, or agreement@10 without labels), or the last one where there are none. Returns
    one row of metrics a round.
    """
    device, world = run.machine.device, run.machine.world
    model.to(device)
    average_weights = get_ema_multi_avg_fn(settings.ema_decay)
    average = AveragedModel(model, multi_avg_fn=average_weights, use_buffers=True)
    averaged = average.module
    assert isinstance(averaged, Retriever), "the average is of the model"
    adam = create_optimizer(model.query_encoder, model.decoder.parameters(), settings)
    trained = [p for group in adam.param_groups for p in group["params"]]
    state = TrainingState(modules={"model": model, "average": average}, optimizer=adam)
    run.restore(state)
    database, anchors = _database(pairs.codes, run.machine), pairs.anchors()
    size = settings.batch_size
    own = world.share(size)
    length = round_length(len(anchors), size, settings.validate_every)
    for steps in remaining_rounds(state.history, settings.steps, length, settings.patience):
        seed_everything(run.seed, steps.start, world.rank)  # dropout
        generator = seeded_generator(run.seed, steps.start)
        model.train()
        means = RoundMeans("retriever.learning_rate", steps)
        picks = draw_batches(steps, len(anchors), size, run.seed)
        batches = pairs.images.prefetch((anchors[batch] for batch in picks), own)
        for step, rows in show_progress(batches, "retriever", steps, settings.steps):
            set_rates(adam, step, settings)
            parts = pairs.images.training(rows, generator, own)
            inputs = [run.machine.send(part) for part in parts]
            drawn = pairs.draw(rows, generator)
            targets = run.machine.send(pairs.soften(rows, drawn, model.decoder.shape.codebook))
            codes = run.machine.send(drawn)  # (B, M)
            with run.machine.precision():
                memory = model.encode(inputs)
                logits = model.decoder(*memory, codes[own])
            logits = world.gather(logits.float(), size)  # (B, M, L)
            losses = {"loss": loss(logits, targets, settings.label_smoothing)}
            if words is not None:
                draws = np.random.default_rng([run.seed, step, world.rank])
                with run.machine.precision():
                    losses["loss/words"] = words.mean_loss(
                        model.decoder, memory, rows[own], codes[own], draws
                    )
            adam.zero_grad()
            torch.stack([*losses.values()]).sum().backward()
            world.average_gradients(trained)
            norm = nn.utils.clip_grad_norm_(trained, settings.gradient_clip)
            adam.step()
            average.update_parameters(model)
            accuracies = (logits.argmax(-1) == codes).double().mean(0)  # (M,)
            named = {f"accuracy/level_{m + 1}": share for m, share in enumerate(accuracies)}
            means.add({**losses, **named}, len(rows), norm)
        row = means.row() | {"learning_rate": adam.param_groups[0]["lr"]}
        if len(validation.queries.images):
            metric = PRECISION if validation.nearest is None else AGREEMENT
            row[metric] = world.once(validate, averaged, validation, database, run.machine)
        state.history.append({"step": steps.stop, **row})
        if is_best(state.history):
            state.keep(averaged)
        run.end_round(state)
    model.load_state_dict(state.best)
    return state.history


@torch.inference_mode()
def validate(
    model: Retriever, validation: Validation, database: Snapshot, machine: Machine
) -> float:
    """Return the mean precision@10, or agreement@10, of generative search for validation queries
    among training images.

    Images that share a code come in order of row: rounds compare without their embeddings.
    """
    model.eval()
    decoder, parts = Decoder(model.decoder, machine.decoder), database.live_parts(fresh=False)
    images, hits = validation.queries.images, 0
    for rows, new in read_in_order(images, 64):
        inputs = [machine.send(part) for part in images.plain(rows)]
        with machine.precision():
            state = decoder.start(*model.encode(inputs))
        beams = beam.search(state, [part.live for part in parts], BEAMS)
        neighbours = rank.gather(database, parts, beams, CUTOFF).rows[:new, :CUTOFF].cpu()
        hits += validation.count_hits(rows[:new], neighbours)
    return hits / CUTOFF / len(images)


def _database(codes: Tensor, machine: Machine) -> Snapshot:
    """Return the training images as a database without embeddings: codes (N, M)."""
    nothing, prefixes = torch.empty(len(codes), 0), trie.build(codes).to(machine.device)
    arrays = (part.to(machine.device) for part in (codes, nothing, nothing))
    return Snapshot.fixed(prefixes, *arrays)
