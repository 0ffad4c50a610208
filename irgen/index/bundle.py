"""The folder of an index, and how it comes to be and moves on without ever being half there.

bundle.json        format, version, configuration, checksums of codebooks and models
codebooks.npy      (M, L, D) float32, the tokenizer's
models/            what read the images; the bundle does not know what is in it
current            the number of the generation that counts
generations/<n>/   what the index held when the generation was written
logs/<n>.log       what was done to it since
lock               held by the one writer
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from irgen.errors import IndexingError
from irgen.index import disk, generation, log, records
from irgen.index.view import View, after

FORMAT, VERSION = "irgen-index", 1
ABOUT, CODEBOOKS, MODELS, CURRENT, LOCK = (
    "bundle.json",
    "codebooks.npy",
    "models",
    "current",
    "lock",
)
Signature = tuple[tuple[int, int, int], ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and what never changes in it: configuration, the ``codebooks`` (M, L, D)
    float32, and size and SHA-256 of the files below ``models``; ``digest`` stands for all of it."""

    folder: Path
    config: dict[str, Any]
    codebooks: Tensor
    models: dict[str, dict[str, Any]]
    digest: str

    def generation(self, number: int) -> Path:
        """The folder of a generation."""
        return self.folder / "generations" / str(number)

    def log(self, number: int) -> Path:
        """The log of a generation."""
        return self.folder / "logs" / f"{number}.log"

    def check_models(self) -> Path:
        """The folder of the models. Raises IndexingError if one of its files is missing or
        damaged."""
        for name, expected in self.models.items():
            disk.check(self.folder / MODELS / name, expected)
        return self.folder / MODELS


def read(folder: Path) -> Bundle:
    """The bundle at ``folder``. Raises IndexingError if there is none, if it is of a newer version,
    or damaged; of the models only names and sizes are looked at."""
    about = _read_about(folder)
    disk.check(folder / CODEBOOKS, about["codebooks"])
    for name, expected in about["models"].items():
        disk.check_size(folder / MODELS / name, expected)
    codebooks = torch.from_numpy(np.load(folder / CODEBOOKS))
    return Bundle(folder, about["config"], codebooks, about["models"], about["digest"])


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    if not folder.exists():
        raise IndexingError(f"there is no index at {folder}: make one first (dvc repro index)")
    if not path.exists():
        raise IndexingError(f"{folder} is not an index: it has no {ABOUT}")
    about = disk.read_sealed(path)
    if about.get("format") != FORMAT:
        raise IndexingError(f"{folder} is not an index: {path} does not say format {FORMAT!r}")
    version = about.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise IndexingError(
            f"{folder} was written by a newer irgen (version {version} of the format; this one "
            f"reads {VERSION}): update irgen"
        )
    disk.check_seal(path, about)
    return about


def current(folder: Path) -> int:
    """The number of the generation that counts. Raises IndexingError if it cannot be told."""
    path = folder / CURRENT
    try:
        text = path.read_text()
    except OSError as error:
        raise IndexingError(f"{path} cannot be read ({error.strerror}): {disk.REMEDY}") from None
    if not text.strip().isdecimal():
        raise disk.damaged(path, f"it says {text[:20]!r}, not a number")
    return int(text)


def load(bundle: Bundle) -> View:
    """The view of all that was acknowledged. Raises IndexingError if the bundle is damaged, or has
    been replaced by another since it was read."""
    return _of_current(bundle, lambda number: _load(bundle, number))


def verify(bundle: Bundle) -> None:
    """Reads every file again, the embeddings and the models too. Raises IndexingError for the first
    one that is missing or damaged."""
    bundle.check_models()

    def check(number: int) -> None:
        generation.verify(bundle.generation(number))
        _load(bundle, number)

    _of_current(bundle, check)


def _of_current(bundle: Bundle, task: Callable[[int], T]) -> T:
    """What ``task`` makes of the number of the generation that counts; of the next one if a
    compaction has deleted what it was just reading."""
    while True:
        number = current(bundle.folder)
        try:
            if read(bundle.folder).digest != bundle.digest:
                raise IndexingError(
                    f"{bundle.folder} has been replaced by an index of other models or another "
                    "configuration: open it again"
                )
            return task(number)
        except IndexingError:
            if current(bundle.folder) == number:
                raise


def _load(bundle: Bundle, number: int) -> View:
    found = generation.read(bundle.generation(number), number)
    levels, _, width = bundle.codebooks.shape
    if (found.segment.codes.shape[1], found.segment.embeddings.shape[1]) != (levels, width):
        raise disk.damaged(bundle.generation(number), "its codes or embeddings are of other models")
    payloads, position = log.read(bundle.log(number), found.owner)
    view = View.of(found, bundle.codebooks, log.beginning(found.owner))
    return after(view, [records.decode(payload) for payload in payloads], position)


def caught_up(bundle: Bundle, view: View) -> View:
    """The view of all that was acknowledged, given an earlier one."""
    now = view.generation
    if current(bundle.folder) != now.number:
        return load(bundle)
    try:
        payloads, position = log.read(bundle.log(now.number), now.owner, view.position)
    except IndexingError:  # deleted by a compaction, replaced, or a failed write was taken back
        return load(bundle)
    return after(view, [records.decode(payload) for payload in payloads], position)


def signature(bundle: Bundle, number: int) -> Signature:
    """Changes whenever there is something to catch up with."""
    found = []
    for path in (bundle.folder / CURRENT, bundle.log(number)):
        try:
            stat = path.stat()
        except FileNotFoundError:
            found.append((0, 0, 0))
        else:
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def point(bundle: Bundle, number: int) -> None:
    """Makes a generation, whose files and log are on the disk, the one that counts."""
    disk.put(bundle.folder / CURRENT, f"{number}\n".encode())


def prune(bundle: Bundle, number: int) -> None:
    """Deletes all generations and logs but those of ``number``, and what killed writers left. For
    the writer alone; whoever has mapped a deleted file keeps it."""
    generations, logs = bundle.generation(number).parent, bundle.log(number).parent
    for path in (*generations.iterdir(), *logs.iterdir(), *bundle.folder.glob(".*.tmp")):
        if path in (bundle.generation(number), bundle.log(number)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
