"""Run a training in rounds of gradient steps, and tell when it has learnt enough.

At the end of a round a training validates, logs and saves its state.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from irgen.catalog.images import pixels as images
from irgen.checkpoints.resume import History, Resume, TrainingState
from irgen.compute.machine import Machine
from irgen.compute.seeds import seeded_generator
from irgen.encoding import augment
from irgen.errors import NumberError
from irgen.models import clusters, decoder, descriptors, encoder, quantizer, tokenizer

Log = Callable[[dict[str, float], int], None]  # of metrics and the number of steps done
CLEARLY = 0.01  # rise of an accuracy or a precision that is more than chance
Order = Callable[[torch.Generator], Tensor]  # rows (N,) of one pass, at random


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Setting of a training: machine, seed, log, resumable state. It has no hyperparameters.

    Of several processes, the first one logs, and reads and writes the state.
    """

    machine: Machine
    seed: int
    log: Log
    resume: Resume | None = None

    def restore(self, state: TrainingState) -> None:
        """Restore ``state`` if this training was interrupted. All processes begin with the same."""
        world = self.machine.world
        saved = None if self.resume is None else world.once(self.resume.read)
        if self.resume is None or saved is None:
            for module in state.modules.values():
                world.copy_first(module.state_dict().values())
            return
        self.resume.restore(state, saved)
        if world.rank == 0:
            step = int(state.history[-1]["step"])
            tqdm.write(f"{self.resume.name}: going on after step {step:,}")

    def end_round(self, state: TrainingState) -> None:
        """Log the last row of the history, then save the state."""
        if self.machine.world.rank > 0:
            return
        row = dict(state.history[-1])
        self.log(row, int(row.pop("step")))
        if self.resume is not None:
            self.resume.save(state)

    def clear(self) -> None:
        """Delete the saved state, after the training's outputs are written."""
        if self.resume is not None:
            self.resume.clear()


def open_run(
    folder: Path, name: str, machine: Machine, seed: int, log: Log, depends_on: Sequence[Any]
) -> TrainingRun:
    """Return a run that continues the same training if it was interrupted.

    Its state is kept below ``folder``, by its name, the code's versions, machine, seed and
    everything else that it ``depends_on``, as JSON-able values.
    """
    resume = Resume(folder, name, code_versions(), str(machine), seed, *depends_on)
    return TrainingRun(machine=machine, seed=seed, log=log, resume=resume)


def code_versions() -> dict[str, int]:
    """Return the versions of the modules that a saved state depends on."""
    modules = (images, augment, encoder, quantizer, clusters, tokenizer, decoder, descriptors)
    return {module.__name__: module.VERSION for module in modules}


def log_with_prefix(log: Log, name: str, row: dict[str, float], step: int) -> None:
    """Log the metrics of one of several trainings of a stage, which ``name`` tells apart."""
    log({f"{name}/{key}": value for key, value in row.items()}, step)


class RoundMeans:
    """Means of metrics over the images of one round of ``steps``. ``rate``: the setting of the
    learning rate, which a message names."""

    def __init__(self, rate: str, steps: range) -> None:
        self._rate, self._step = rate, steps.start
        self._sums: dict[str, float] = defaultdict(float)
        self._images = 0

    def add(self, means: Mapping[str, Tensor], images: int, gradient: Tensor | None = None) -> None:
        """Add a step's means over so many ``images``. Raises NumberError if one of them, or the
        norm of the ``gradient``, is not finite."""
        self._images += images
        self._step += 1
        for name, value in means.items():
            self._sums[name] += self._check(name, value) * images
        if gradient is not None:
            self._check("gradient", gradient)

    def _check(self, name: str, value: Tensor) -> float:
        number = float(value.detach())
        if not math.isfinite(number):
            raise NumberError(
                f"{name} is {number} at step {self._step}: the training diverges; lower "
                f"{self._rate} in params.yaml, and set compute.precision to fp32 if it is not"
            )
        return number

    def row(self) -> dict[str, float]:
        """Return the mean of each metric."""
        return {name: total / self._images for name, total in self._sums.items()}


def show_progress(
    batches: Iterable[Tensor], name: str, steps: range, most: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield the batches of a round with their ``steps``, of at most so many. Show a progress bar
    where there is a terminal."""
    bar = tqdm(batches, name, most, initial=steps.start, leave=False, disable=None, unit="step")
    return zip(steps, bar, strict=True)


def remaining_rounds(
    history: History, steps: int, length: int, patience: int | None = None
) -> Iterator[range]:
    """Yield the steps of each round that is left of ``steps``, ``length`` a round but the last.

    The training appends a row to ``history`` a round. End when the last ``patience`` validations
    brought no gain.

    >>> list(remaining_rounds([{"step": 4}], 9, 2))
    [range(4, 6), range(6, 8), range(8, 9)]
    """
    first = int(history[-1]["step"]) if history else 0
    for start in range(first, steps, length):
        if patience is not None and is_exhausted(history, patience):
            return
        yield range(start, min(start + length, steps))


def round_length(images: int, batch_size: int, least: int = 1) -> int:
    """Return the steps of a round: ``least``, or one pass over all images if that is more.

    What a round ends with (residual k-means, validation) takes time in proportion to the images. So
    it always takes less time than the round's own steps.

    >>> round_length(300, 100, least=40), round_length(300_000, 100, least=40)
    (40, 3000)
    """
    return max(least, -(-images // batch_size))


def draw_batches(
    steps: range, count: int, size: int, seed: int, order: Order | None = None
) -> Iterator[Tensor]:
    """Yield the rows (``size``,) of each of ``steps``, pass after pass over rows 0 … count − 1.

    Each pass has an order of its own, and a batch may hold the end of one pass and the start of the
    next. ``order`` draws it; without it, all orders are equally likely. Batches depend on the seed
    and the step alone, so a resumed training draws the same ones.
    """
    shuffle = order or (lambda generator: torch.randperm(count, generator=generator))
    passed, start = divmod(steps.start * size, count)
    orders = (shuffle(seeded_generator(seed, number)) for number in itertools.count(passed))
    rows = next(orders)[start:]
    for _ in steps:
        while len(rows) < size:
            rows = torch.cat([rows, next(orders)])
        yield rows[:size]
        rows = rows[size:]


def scores(history: History) -> list[float]:
    """Return the mean of the validation metrics of each round that has any."""
    rows = [[v for name, v in row.items() if name.startswith("validation/")] for row in history]
    return [sum(row) / len(row) for row in rows if row]


def is_best(history: History) -> bool:
    """Tell whether the last round is the one to keep: none validated better, or nothing
    validates."""
    values = scores(history)
    return not values or values[-1] == max(values)


def is_exhausted(history: History, patience: int) -> bool:
    """Tell whether the last ``patience`` validations brought no gain."""
    values = scores(history)
    return len(values) > patience and max(values[-patience:]) <= max(values[:-patience])


def summarize(history: History, steps: int) -> dict[str, float]:
    """Return the metrics of the kept round, and ``steps`` done of at most ``steps``.

    ``validation_rising`` is 1 if training did all steps and validated clearly better at the last
    one than ever before: then more steps would help. It is missing if nothing validates.
    """
    kept = max(n for n in range(1, len(history) + 1) if is_best(history[:n]))
    done = history[-1]["step"]
    metrics = {name: value for name, value in history[kept - 1].items() if name != "step"}
    metrics |= {"steps": done, "best_step": history[kept - 1]["step"]}
    if values := scores(history):
        rise = values[-1] - max(values[:-1], default=0.0)
        metrics["validation_rising"] = float(done == steps and rise >= CLEARLY)
    return metrics
