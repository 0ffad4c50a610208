"""Brings the local copy of the source up to date; reads and writes only what is new or changed."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from irgen.catalog import manifest
from irgen.catalog.datasets.annotations import without
from irgen.catalog.shards import intact
from irgen.catalog.sources.listing import Source
from irgen.catalog.sources.open import open_source
from irgen.catalog.sync import Change, sync
from irgen.catalog.sync import look as differs
from irgen.errors import ArtifactError, ParamsError
from irgen.files import file_digest, read_json, write_json
from irgen.params import Params
from irgen.workspace import Workspace

Log = Callable[[dict[str, float], int], None]

MEMORY = "archive.json"  # the stamp of what was synced last
FILES = "files"  # archives from elsewhere, while they are fetched and read


def run(params: Params, workspace: Workspace, log: Log) -> dict[str, float]:
    """Writes ``data/download`` (manifest and shards). Metrics: images, and how many are new,
    changed, gone and relabelled; none at all if the source has not changed.

    Raises SourceError if the source is missing, unreadable, unsafe or empty; ParamsError if the
    revisions here do not reach ``catalog.training_revision``: they are counted anew.
    """
    folder, cache = workspace.stage("download"), workspace.cache / "download"
    source = open_source(params.download, cache / FILES)
    if _is_remembered(source, workspace):
        _check_cutoff(params.catalog.training_revision, folder)
        print(_unchanged(len(without(manifest.images(manifest.read(folder)))), folder))
        return {}
    with _alone(cache):
        change = sync(source, folder, trained=_spared(params.catalog.training_revision))
        if source.stamp is not None:
            write_json(cache / MEMORY, _state(source, folder))
        shutil.rmtree(cache / FILES, ignore_errors=True)  # every image of it is packed now
    _check_cutoff(params.catalog.training_revision, folder)
    if not change:
        print(_unchanged(change.images, folder))
        return {}
    print(_told(change))
    return {
        "images/total": change.images,
        "images/new": change.new,
        "images/changed": change.changed,
        "images/gone": change.gone,
        "images/relabelled": change.relabelled,
        "revision": change.revision,
    }


def _spared(trained: int) -> int:
    """The revision whose images keep their bytes when they go: the cut-off, or while a retrain is
    under way that from before it (``IRGEN_CUTOFF_BEFORE``), which it may go back to."""
    return min(trained, int(os.environ.get("IRGEN_CUTOFF_BEFORE", trained)))


def _check_cutoff(trained: int, folder: Path) -> None:
    """Images that came up to the cut-off are trained on: one ahead of all revisions would have the
    models trained anew by each update until the revisions reach it."""
    revision, _ = manifest.read_revision(folder)
    if trained > revision:
        raise ParamsError(
            f"params.yaml: catalog: training_revision: {trained} is ahead of the images here, "
            f"which are at revision {revision}, counted anew: bring their manifest back (dvc pull "
            f"download), or set it to {revision}, which trains on all of them"
        )


def look(params: Params, workspace: Workspace) -> bool:
    """Whether the source may differ from what is in ``data/download``: from its listing, or for an
    archive from its stamp, alone; no image is read. Raises SourceError if that cannot be told."""
    source = open_source(params.download, workspace.cache / "download" / FILES)
    if source.stamp is not None:
        return not _is_remembered(source, workspace)
    return differs(source, workspace.stage("download"))


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Waits for other experiments of the project: they fetch into the same files."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_remembered(source: Source, workspace: Workspace) -> bool:
    if source.stamp is None:
        return False
    memory = workspace.cache / "download" / MEMORY
    return _recall(memory) == _state(source, workspace.stage("download"))


def _state(source: Source, folder: Path) -> dict[str, str] | None:
    """What has to be the same for a sync to have nothing to do; None: there is no whole copy."""
    path = folder / manifest.NAME
    if not path.is_file():
        return None
    table = manifest.read(folder)
    listed = set(table["shard"].drop_nulls())
    if intact(folder, table) != listed:
        return None
    return {"stamp": source.stamp or "", "name": source.name, "manifest": file_digest(path)}


def _recall(memory: Path) -> dict[str, str] | str:
    try:
        return read_json(memory)
    except ArtifactError:  # a cache: without it the archive is read again
        return "nothing"


def _unchanged(images: int, folder: Path) -> str:
    revision, _ = manifest.read_revision(folder)
    return f"source unchanged: {images:,} images, revision {revision}"


def _told(change: Change) -> str:
    parts = [f"{change.new:,} new", f"{change.changed:,} changed", f"{change.gone:,} gone"]
    if change.relabelled:
        parts.append(f"{change.relabelled:,} relabelled")
    return f"{', '.join(parts)} → revision {change.revision}"
