"""Follow the served release: open each new champion and swap it in once it can answer."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from irgen.errors import IrgenError
from irgen.index import folder
from irgen.index.index import Index
from irgen.releases import release
from irgen.releases.release import Release
from irgen.serve.errors import NotReadyError

log = logging.getLogger("irgen.serve")
FileState = tuple[str, int, int]  # resolved folder; inode and time of its index.json


@dataclass(frozen=True)
class Served:
    """An index that answers. ``record``: of its release, None for an index that is none.

    Whoever searches keeps this object until the answer is sent. A swap replaces it in
    ``Champion``; its files are closed when nobody holds it any more.
    """

    index: Index
    record: Release | None
    state: FileState

    @property
    def version(self) -> int | None:
        """Return the version of its release."""
        return None if self.record is None else self.record.version

    @property
    def name(self) -> str:
        """Return the name of the index's folder."""
        return Path(self.state[0]).name


class Champion:
    """Index that is served now. ``locate`` returns the folder of the champion; it may raise
    IrgenError if there is none. ``role``: what the log calls it."""

    def __init__(
        self, locate: Callable[[], Path], device: str, *, role: str = "served index"
    ) -> None:
        self._locate, self._device, self._role = locate, device, role
        self.served: Served | None = None
        self.error: str | None = None

    def require(self) -> Served:
        """Return the index that is served. Raise NotReadyError if there is none yet."""
        if self.served is None:
            raise NotReadyError(self.error or "it is being opened")
        return self.served

    def look(self) -> bool:
        """Open the champion if it is another one than the one served; return whether it was
        swapped. The old one goes on answering if the new one cannot be opened; ``error`` says
        why."""
        try:
            path = self._locate().resolve()
            state = _file_state(path)
        except (IrgenError, OSError) as error:
            self._report(error)
            return False
        if self.served is not None and state == self.served.state:
            self.error = None
            return False
        try:
            served = _open(path, state, self._device, self.served)
        except Exception as error:  # whatever is wrong with its files, the old one goes on
            self._report(error)
            return False
        old, self.served, self.error = self.served, served, None
        before = old and old.name
        fields = {"index": str(path), "images": len(served.index), "before": before}
        log.info("%s opened", self._role, extra={"fields": fields})
        return True

    def _report(self, error: Exception) -> None:
        """Log an error once, not at every look."""
        text = str(error)
        if text != self.error:
            log.error("the %s cannot be opened", self._role, extra={"fields": {"reason": text}})
        self.error = text


def _file_state(path: Path) -> FileState:
    try:
        stat = (path / folder.DESCRIPTION).stat()
    except FileNotFoundError:
        folder.read(path)  # which says what is missing, and the remedy
        raise
    return str(path), stat.st_ino, stat.st_mtime_ns


def _open(path: Path, state: FileState, device: str, old: Served | None) -> Served:
    """Open an index, load its models unless those of ``old`` are the same, and search once, so that
    the first query is not slow."""
    index = Index.open(path, device=device)
    if old is not None:
        index.share_models(old.index)
    record = release.read(path) if (path / release.RECORD).exists() else None
    blank = np.zeros((1, *index.models.decoding.shape), np.uint8)
    index.calibration  # noqa: B018 – load it now
    with torch.inference_mode():
        index.search(blank, 1)
    return Served(index, record, state)
