"""Bring the local copy of the source up to date; read and write only what is new or changed.

Time: in proportion to the files that are listed, and to the bytes of those that are new.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import polars as pl
from filelock import FileLock

from irgen.catalog import guard, manifest
from irgen.catalog.assembly import explain_no_labels
from irgen.catalog.captions import copy_captions, have_captions_changed
from irgen.catalog.changes import Change
from irgen.catalog.datasets.annotations import drop_annotations
from irgen.catalog.formats import choose_format
from irgen.catalog.guard import Guard
from irgen.catalog.shards import find_intact
from irgen.catalog.sources.listing import Source
from irgen.catalog.sources.open import open_source
from irgen.catalog.sync import has_changed, sync
from irgen.checkpoints.fingerprint import have_weights_changed, note_weights
from irgen.errors import ArtifactError, CatalogError, ParamsError, escape_controls
from irgen.evaluation.warnings import format_warnings, warn_no_encoder
from irgen.files.digests import file_digest
from irgen.files.records import read_json, write_json
from irgen.files.workspace import Workspace
from irgen.params import Params

LAST_SYNC = "archive.json"  # the stamp of the archive that was synced last
LINE = 400  # characters of a printed line
PRINTED = 5  # images without bytes that are printed
FILES = "files"  # archives from elsewhere, while they are fetched and read


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/download``: manifest, shards, captions and the digest of the encoder's weights.
    Return how many images there are, and are new, changed, gone, relabelled and unreadable; nothing
    if the source has not changed.

    Raises SourceError if the source is missing, unreadable, unsafe or empty; RemovalsError if more
    images would go than may without a person's word; ParamsError if the training revision is ahead
    of the images' revision.
    """
    if warning := warn_no_encoder(params.encoder, params.download):
        print(format_warnings([warning]))  # before the hours it takes, not only after them
    folder = workspace.stage("download")
    with _guard(params, workspace).holding():
        source = open_source(params.download, workspace.cache / "download" / FILES)
        metrics = _sync(params, workspace, source)
    guard.withdraw(workspace.cache / "download")
    copy_captions(folder, params.download.captions)
    _print_no_labels(params, folder)
    if note_weights(folder, params.encoder):
        print(f"the weights of the encoder have changed ({params.encoder.weights})")
    return metrics


def _guard(params: Params, workspace: Workspace) -> Guard:
    """Return the guard of the images in the stage's folder."""
    return Guard(
        folder=workspace.stage("download"),
        cache=workspace.cache / "download",
        checks=workspace.cache / "catalog",
        share=params.download.most_removed,
        format_name=params.catalog.format,
    )


def _sync(params: Params, workspace: Workspace, source: Source) -> dict[str, float]:
    """Bring the images in the stage's folder up to date, and return the counts of the change."""
    folder, cache = workspace.stage("download"), workspace.cache / "download"
    if _is_synced(source, workspace):
        _check_training_revision(params.catalog.training_revision, folder)
        images = drop_annotations(manifest.images(manifest.read(folder)))
        print(_format_unchanged(len(images), folder))
        _print_missing(folder)
        return {}
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):  # other experiments of the project fetch into the same files
        trained = params.catalog.training_revision
        # A retrain may go back to the revision before it: keep the bytes of its images too.
        trained = min(trained, int(os.environ.get("IRGEN_PREVIOUS_REVISION", trained)))
        change = sync(
            source,
            folder,
            trained=trained,
            max_unreadable=params.download.max_unreadable,
            check=_guard(params, workspace).check,
        )
        if source.stamp is not None:
            write_json(cache / LAST_SYNC, _describe_copy(source, folder))
        shutil.rmtree(cache / FILES, ignore_errors=True)  # every image of it is packed now
    _check_training_revision(params.catalog.training_revision, folder)
    for line in change.notes:
        print(f"  {escape_controls(line)}")
    if change:
        print(_format_change(change))
    else:
        print(_format_unchanged(change.images, folder))
    _print_missing(folder)
    if not change:
        return {}
    return {
        "images/total": change.images,
        "images/new": change.new,
        "images/changed": change.changed,
        "images/gone": change.gone,
        "images/relabelled": change.relabelled,
        "files/left_out": change.left_out,
        "images/unreadable": change.unreadable,
        "revision": change.revision,
    }


def _check_training_revision(trained: int, folder: Path) -> None:
    """Raise ParamsError if the training revision is ahead of the images' revision. Else each update
    would train again until the images reach it."""
    revision, _ = manifest.read_revision(folder)
    if trained > revision:
        raise ParamsError(
            f"training.yaml: revision: {trained} is ahead of the images here, which are at "
            f"revision {revision}: bring their manifest back (dvc pull download), or set it to "
            f"{revision}, which trains on all of them"
        )


def may_have_changed(params: Params, workspace: Workspace) -> bool:
    """Tell whether the source may differ from ``data/download``, by its listing alone or, for an
    archive, by its stamp, or whether captions or the encoder's weights were replaced. No image is
    read. Raises SourceError if the source cannot be listed."""
    folder = workspace.stage("download")
    if have_weights_changed(folder, params.encoder):
        return True
    if have_captions_changed(folder, params.download.captions):
        return True
    with _guard(params, workspace).holding():
        source = open_source(params.download, workspace.cache / "download" / FILES)
        if source.stamp is not None:
            changed = not _is_synced(source, workspace)
        else:
            changed = has_changed(source, workspace.stage("download"))
    if not changed:
        guard.withdraw(workspace.cache / "download")
    return changed


def _is_synced(source: Source, workspace: Workspace) -> bool:
    """Tell whether ``data/download`` is a copy of this archive in its present state."""
    folder = workspace.stage("download")
    if source.stamp is None:
        return False
    if source.retried and _has_unreadable(folder):
        return False
    path = workspace.cache / "download" / LAST_SYNC
    try:
        return read_json(path) == _describe_copy(source, folder)
    except ArtifactError:  # a cache: without it the archive is read again
        return False


def _has_unreadable(folder: Path) -> bool:
    is_there = (folder / manifest.NAME).is_file()
    return is_there and len(manifest.unreadable(manifest.read(folder))) > 0


def _describe_copy(source: Source, folder: Path) -> dict[str, str] | None:
    """Return the state of source and copy: if it is as after the last sync, there is nothing to do.
    None if the copy is not whole."""
    path = folder / manifest.NAME
    if not path.is_file():
        return None
    table = manifest.read(folder)
    if find_intact(folder, table) != set(table["shard"].drop_nulls()):
        return None
    return {
        "stamp": source.stamp or "",
        "name": source.name,
        "manifest": file_digest(path),
        **{f"columns: {name}": kind for name, kind in source.types.items()},
    }


def _format_unchanged(images: int, folder: Path) -> str:
    revision, _ = manifest.read_revision(folder)
    return f"source unchanged: {images:,} images, revision {revision}"


def _format_change(change: Change) -> str:
    parts = [f"{change.new:,} new", f"{change.changed:,} changed", f"{change.gone:,} gone"]
    if change.relabelled:
        parts.append(f"{change.relabelled:,} relabelled")
    return f"{', '.join(parts)} → revision {change.revision}"


def _print_no_labels(params: Params, folder: Path) -> None:
    """Print if no image has a label and labels are used: the stage catalog will refuse that."""
    with suppress(CatalogError):  # which the stage catalog will say
        source_format = choose_format(manifest.read(folder), params.catalog.format)
        if problem := explain_no_labels(source_format, params.tokenizer.labels):
            print(f"  {problem}")


def _print_missing(folder: Path) -> None:
    """Print how many images cannot be had, or are named by a list and not there, and some names."""
    table = manifest.read(folder)
    problems = manifest.unreadable(table)
    if len(problems):
        kept = len(manifest.images(problems))
        old = f" (the old content of {kept:,} stays)" if kept else ""
        print(f"{len(problems):,} images cannot be had{old}; the next update tries again:")
        _print_some(problems.select("key", "problem"))
    absent = manifest.absent(table)
    if len(absent):
        print(f"{len(absent):,} of {len(table):,} images that the list names are not there:")
        _print_some(absent.select("key"))


def _print_some(rows: pl.DataFrame) -> None:
    for row in rows.head(PRINTED).iter_rows():
        print(f"  {escape_controls(': '.join(row))}"[:LINE])
    if len(rows) > PRINTED:
        print(f"  … and {len(rows) - PRINTED:,} more, in data/catalog/rejected.parquet")
