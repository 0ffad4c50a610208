"""Keep the flows' notes about a project between runs, in ``.cache/flows``.

The folder may be deleted while no flow runs: then the next update checks every stage and reports
all images as new.
"""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.datasets.annotations import drop_annotations
from irgen.errors import IrgenError
from irgen.files.atomic import atomic
from irgen.files.digests import digest, file_digest
from irgen.files.records import read_json, write_json
from irgen.files.workspace import Workspace
from irgen.params import load, read_training_revision
from irgen.tracking import locations


class ProjectError(IrgenError):
    """A folder is not a project that flows can work on."""


def find_project(root: str) -> Path:
    """Return the absolute path of a project's folder. Raises ProjectError if it has no pipeline."""
    path = Path(root).expanduser().resolve()
    for name in ("dvc.yaml", ".dvc"):
        if not (path / name).exists():
            raise ProjectError(
                f"{path} has no {name}: give the project's folder, by the flow's parameter root or "
                "as IRGEN_ROOT when prefect deploy and the worker are started"
            )
    return path


def memory_folder(root: Path) -> Path:
    """Return the folder of the flows' notes; create it if it is missing."""
    folder = root / ".cache" / "flows"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, kw_only=True)
class LastPass:
    """Notes about the last finished pass over the pipeline.

    ``key``: the state of the project at its end (``state_key``). ``settled``: the index was
    released or rejected, and bucket and MLflow are up to date. ``metrics``: flat, by name.
    ``announced``: by event, the digest of the index that it was last sent for.
    """

    key: str
    settled: bool
    metrics: dict[str, float] = field(default_factory=dict)
    announced: dict[str, str] = field(default_factory=dict)


def read_last_pass(root: Path) -> LastPass | None:
    """Return the last finished pass; None if there is none."""
    path = memory_folder(root) / "finished.json"
    return LastPass(**read_json(path)) if path.is_file() else None


def write_last_pass(root: Path, last: LastPass) -> None:
    """Note a finished pass."""
    write_json(memory_folder(root) / "finished.json", asdict(last))


def state_key(root: Path) -> str:
    """Return the digest of the project's state: the manifest, DVC's lock file and the training
    revision. The last one tells the results of a retrain that was undone from those before it."""
    paths = (Workspace.at(root).manifest, root / "dvc.lock")
    digests = [file_digest(path) if path.is_file() else None for path in paths]
    return digest(*digests, read_training_revision(root))


def count_changes(root: Path) -> dict[str, int]:
    """Count all images, and those new, changed and gone since the last release; add the data
    revision. Before the first release all images are new."""
    folder = Workspace.at(root).stage("download")
    now, before = _read_images(folder), _read_images(_released_manifest(root))
    both = now.join(before, on="key", suffix="_before")
    revision, _ = manifest.read_revision(folder)
    return {
        "images": now.height,
        "new": now.height - both.height,
        "changed": both.filter(pl.col("sha256") != pl.col("sha256_before")).height,
        "gone": before.height - both.height,
        "revision": revision,
    }


def format_changes(counts: dict[str, int]) -> str:
    """Describe the counts in words.

    >>> format_changes({"images": 9, "new": 2, "changed": 0, "gone": 1, "revision": 4})
    '2 new, 0 changed, 1 gone; 9 images at revision 4'
    """
    return (
        f"{counts['new']:,} new, {counts['changed']:,} changed, {counts['gone']:,} gone; "
        f"{counts['images']:,} images at revision {counts['revision']}"
    )


def format_news(counts: dict[str, int]) -> str:
    """Describe the counts for a flow run's name, without zeros.

    >>> format_news({"images": 9, "new": 40, "changed": 0, "gone": 1, "revision": 4})
    '40 new, 1 gone'
    """
    kinds = [kind for kind in ("new", "changed", "gone") if counts[kind]]
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds)


def catalogue_name(root: Path) -> str:
    """Return the name that the catalogue has in MLflow; the folder's if settings are wrong."""
    try:
        return locations.experiment_name(load(root / "params.yaml"))
    except IrgenError:
        return root.name


def remember_manifest(root: Path) -> None:
    """Note the manifest as that of the last release."""
    source = Workspace.at(root).manifest
    if source.is_file():
        with atomic(_released_manifest(root) / manifest.NAME) as path:
            shutil.copyfile(source, path)


def _released_manifest(root: Path) -> Path:
    return memory_folder(root) / "released"


def _read_images(folder: Path) -> pl.DataFrame:
    if not (folder / manifest.NAME).is_file():
        return pl.DataFrame(schema={"key": pl.String, "sha256": pl.String})
    return drop_annotations(manifest.images(manifest.read(folder))).select("key", "sha256")
