"""Share what every training needs: machine, seed, log, resumable state, means of a round."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from irgen.catalog import images
from irgen.checkpoints.resume import Resume, TrainingState
from irgen.compute import Machine
from irgen.encoding import augment
from irgen.models import clusters, decoder, descriptors, encoder, quantizer, tokenizer

Log = Callable[[dict[str, float], int], None]  # of metrics and the number of steps done


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Setting of a training: machine, seed, log, resumable state. It has no hyperparameters."""

    machine: Machine
    seed: int
    log: Log
    resume: Resume | None = None

    def restore(self, state: TrainingState) -> None:
        """Restore ``state`` if this training was interrupted."""
        if self.resume is not None:
            self.resume.restore(state)

    def end_round(self, state: TrainingState) -> None:
        """Log the last row of the history, then save the state."""
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


class RoundMeans:
    """Means of metrics over the images of one round."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._images = 0

    def add(self, means: Mapping[str, Tensor], images: int) -> None:
        """Add a batch's means over so many ``images``."""
        self._images += images
        for name, value in means.items():
            self._sums[name] += float(value.detach()) * images

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
