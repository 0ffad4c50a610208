"""Folders of a project: one a stage, a cache that may be deleted, the reports; and Git commands."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from irgen.errors import ArtifactError

MANIFEST = "manifest.parquet"
GIT_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Folders of one project.

    ``data`` holds one folder a stage, tracked by DVC. ``cache``, outside of DVC, holds files that
    can be made again: encodings by content hash, training checkpoints, run logs. ``reports`` holds
    pages for people.
    """

    data: Path
    cache: Path
    reports: Path

    @classmethod
    def at(cls, root: Path) -> "Workspace":
        """Return the folders below a project's root."""
        return cls(data=root / "data", cache=root / ".cache", reports=root / "reports")

    @property
    def manifest(self) -> Path:
        """Return the file that lists the images of the source (``catalog.manifest``)."""
        return self.stage("download") / MANIFEST

    def stage(self, name: str) -> Path:
        """Return the folder that stage ``name`` writes."""
        return self.data / name

    def existing(self, *parts: str) -> Path:
        """Return the path of an earlier stage's output: ``existing("catalog", "train.parquet")``.

        Raises ArtifactError, naming the stage to run, if it is missing.
        """
        path = self.data.joinpath(*parts)
        if not path.exists():
            raise ArtifactError(
                f"{path} is missing: run the stage that writes it first (dvc repro {parts[0]})"
            )
        return path


def git(root: Path, *arguments: str) -> str | None:
    """Return what a Git command prints; None if it fails or there is no Git."""
    command = ["git", "-C", str(root), *arguments]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.strip()
