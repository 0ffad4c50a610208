"""What the last finished pass over the pipeline left, so that an update can tell that nothing is
due without asking any stage."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from flows.project import memory
from irgen.files import digest, file_digest, read_json, write_json
from irgen.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Finished:
    """``key``: the state of the data it ended with. ``settled``: released or turned down, and
    everybody told. ``metrics``: what was measured, flat. ``announced``: of each
    event, the index that it was last told of."""

    key: str
    settled: bool
    metrics: dict[str, float] = field(default_factory=dict)
    announced: dict[str, str] = field(default_factory=dict)


def key(root: Path) -> str:
    """What the pipeline's results stand at: the manifest of the images and DVC's lock file."""
    paths = (Workspace.at(root).manifest, root / "dvc.lock")
    return digest(*(file_digest(path) if path.is_file() else None for path in paths))


def read(root: Path) -> Finished | None:
    """The last finished pass; None if there is none."""
    path = memory(root) / "finished.json"
    return Finished(**read_json(path)) if path.is_file() else None


def write(root: Path, finished: Finished) -> None:
    """Notes a finished pass."""
    write_json(memory(root) / "finished.json", asdict(finished))
