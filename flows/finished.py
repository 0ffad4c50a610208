"""What the last finished pass over the pipeline left, so that an update can tell that nothing is
due without asking any stage."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from flows import cutoff
from flows.project import memory
from irgen.errors import ParamsError
from irgen.files import digest, file_digest, read_json, write_json
from irgen.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Finished:
    """``key``: the state of the data, and the cut-off, it ended with. ``settled``: released or
    turned down, and everybody told. ``metrics``: what was measured, flat. ``announced``: of each
    event, the index that it was last told of."""

    key: str
    settled: bool
    metrics: dict[str, float] = field(default_factory=dict)
    announced: dict[str, str] = field(default_factory=dict)


def key(root: Path) -> str:
    """What the pipeline's results stand at: the manifest of the images, DVC's lock file, and the
    training cut-off, so that the results of a retrain that was taken back are not those that are
    due."""
    paths = (Workspace.at(root).manifest, root / "dvc.lock")
    digests = [file_digest(path) if path.is_file() else None for path in paths]
    return digest(*digests, _cutoff(root))


def _cutoff(root: Path) -> int | None:
    try:
        return cutoff.read(root)
    except (ParamsError, FileNotFoundError):  # a pipeline that has none
        return None


def read(root: Path) -> Finished | None:
    """The last finished pass; None if there is none."""
    path = memory(root) / "finished.json"
    return Finished(**read_json(path)) if path.is_file() else None


def write(root: Path, finished: Finished) -> None:
    """Notes a finished pass."""
    write_json(memory(root) / "finished.json", asdict(finished))
