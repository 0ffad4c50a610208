"""Where a run keeps its files: one folder a stage, a cache that may be deleted, and the reports."""

from dataclasses import dataclass
from pathlib import Path

from irgen.errors import ArtifactError

MANIFEST = "manifest.parquet"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The folders of one project.

    ``data`` holds one folder a stage (tracked by DVC). ``cache`` holds what can be made again and
    is outside of DVC: encodings by content hash, training checkpoints, the tracking journal.
    ``reports`` holds what people read.
    """

    data: Path
    cache: Path
    reports: Path

    @classmethod
    def at(cls, root: Path) -> "Workspace":
        """The usual layout below a project's root."""
        return cls(data=root / "data", cache=root / ".cache", reports=root / "reports")

    @property
    def manifest(self) -> Path:
        """What there is of the source, in the folder of the images (``catalog.manifest``)."""
        return self.stage("download") / MANIFEST

    def stage(self, name: str) -> Path:
        """The folder that stage ``name`` writes."""
        return self.data / name

    def existing(self, *parts: str) -> Path:
        """The path of an earlier stage's output, e.g. ``existing("catalog", "train.parquet")``.

        Raises ArtifactError, naming the stage to run, if it is not there.
        """
        path = self.data.joinpath(*parts)
        if not path.exists():
            raise ArtifactError(
                f"{path} is missing: run the stage that writes it first (dvc repro {parts[0]})"
            )
        return path
