"""Brings the local copy of the source up to date; reads and writes only what is new or changed."""

from collections.abc import Callable
from pathlib import Path

from irgen.catalog import manifest
from irgen.catalog.listing import Source
from irgen.catalog.shards import intact
from irgen.catalog.sources import open_source
from irgen.catalog.sync import Change, sync
from irgen.errors import ArtifactError
from irgen.files import file_digest, read_json, write_json
from irgen.params import Params
from irgen.workspace import Workspace

Log = Callable[[dict[str, float], int], None]


def run(params: Params, workspace: Workspace, log: Log) -> dict[str, float]:
    """Writes ``data/download`` (manifest and shards). Metrics: images, and how many are new,
    changed, gone and relabelled; none at all if the source has not changed.

    Raises SourceError if the source is missing, unreadable, unsafe or empty.
    """
    folder, memory = workspace.stage("download"), workspace.cache / "download" / "archive.json"
    source = open_source(params.download)
    if source.stamp is not None and _recall(memory) == _state(source, folder):
        print(_unchanged(len(manifest.images(manifest.read(folder))), folder))
        return {}
    change = sync(source, folder)
    if source.stamp is not None:
        write_json(memory, _state(source, folder))
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
