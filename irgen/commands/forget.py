"""``irgen forget``: delete images for good that the source does not have any more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands import project_index
from irgen.commands.format import format_count
from irgen.commands.options import params_option, root_option, settings_file
from irgen.commands.remove import read_ids
from irgen.errors import CatalogError, IrgenError
from irgen.files.workspace import Workspace
from irgen.params import load
from irgen.releases import own_index

if TYPE_CHECKING:
    from irgen.catalog.forget import Traces

STUDY = "comparison"  # folder in the cache with the stages of comparisons


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--ids-from", metavar="FILE", help="A file with one id per line; - is stdin.")
@params_option
@root_option
def forget(ids: tuple[str, ...], ids_from: str | None, params: Path | None, root: Path) -> None:
    """Delete for good images that the source does not have any more: bytes, embeddings and names.

    ID is the id of an image, or its path in the source. Delete the image from the source first,
    retrain if it was trained on, and release. An image whose content was replaced counts as well:
    its former content is deleted. What is deleted: its bytes in the packed images and in uploads/,
    what caches and index/ hold of it, earlier releases with it (here, in the bucket and in MLflow),
    and reports and files in MLflow that name it. Nothing else may run in the project meanwhile.

    DVC's cache keeps old states of all files until dvc gc deletes them, as this command says.
    """
    from filelock import FileLock

    from irgen.releases import forget as releases
    from irgen.releases import store
    from irgen.tracking.forget import forget_artifacts

    names = frozenset([*ids, *(read_ids(ids_from) if ids_from else [])])
    if not names:
        raise click.UsageError("name ids, or a file of them with --ids-from")
    settings, workspace = load(settings_file(root, params)), Workspace.at(root)
    traces = find_traces(root, names)
    check_unused(workspace, traces)
    holding = releases.list_holding(store.path_in(root), traces)
    (workspace.cache / "download").mkdir(parents=True, exist_ok=True)
    with FileLock(workspace.cache / "download" / "lock"):
        try:  # releases and packed images come last: a repetition looks the images up there
            artifacts = forget_artifacts(root, settings, traces)
            clear_caches(workspace, traces)
            remove_from_index(root, traces)
            releases.delete_releases(root, settings, holding)
            forget_packed(workspace, traces)
        except IrgenError as error:
            text = f"{error}; not everything is deleted yet: mend that and repeat irgen forget"
            raise CatalogError(text) from error
    images, deleted = format_count(len(names), "image"), format_count(len(holding), "release")
    print(
        f"{images} forgotten, with {deleted} and {format_count(artifacts, 'file')} in MLflow. "
        "Copies are left in DVC's cache: dvc repro, then dvc gc --workspace --force (with --cloud "
        "for the remote, too)."
    )


def find_traces(root: Path, ids: frozenset[str]) -> Traces:
    """Return the ids, and the hashes of their contents that are to go. Raise CatalogError if the
    source still has one of them as it is, or if one is unknown."""
    from irgen.catalog.forget import Traces, find_contents, find_present
    from irgen.releases import forget as releases
    from irgen.releases import store

    folder, hashes = Workspace.at(root).stage("download"), set[str]()
    indexes = [store.path_in(root) / old.name for old in store.list_releases(store.path_in(root))]
    indexes += [own_index.path_in(root)] if own_index.exists(root) else []
    in_indexes = [releases.find_contents(index, ids) for index in indexes]
    in_indexes += [releases.find_in_source(own_index.path_in(root), ids)]
    in_source = find_contents(folder, ids)
    for name in sorted(ids):
        present, past = in_source[name]
        contents = (past | {index[name] for index in in_indexes if name in index}) - present
        if not contents:
            reason = (
                f"the source still has {name}: delete it there, then update (dvc repro)"
                if present
                else f"{name} is unknown: no source, release or index/ holds it, or not any more; "
                "leave it out"
            )
            raise CatalogError(f"{reason}; nothing was deleted")
        hashes |= contents - {""}
    if copies := find_present(folder, hashes):
        key = next(iter(copies.values()))
        raise CatalogError(
            f"the source still has the same content as {key}: delete that, too, then update "
            "(dvc repro); nothing was deleted"
        )
    return Traces(ids, frozenset(hashes))


def check_unused(workspace: Workspace, traces: Traces) -> None:
    """Raise CatalogError if a table of the catalogue still lists one of the contents."""
    import polars as pl

    from irgen.catalog.table import NAMES

    for name in NAMES:
        path = workspace.stage("catalog") / f"{name}.parquet"
        if not path.exists():
            continue
        table = pl.scan_parquet(path).select("id", "sha256").collect()
        used = table.filter(pl.col("sha256").is_in(list(traces.sha256s)))
        if len(used):
            remedy = (
                "retrain first (prefect deployment run retrain/retrain -p force=true, or set "
                "revision in training.yaml to that of the images, then dvc repro)"
                if name in ("train", "validation")
                else "bring the pipeline up to date first (dvc repro)"
            )
            raise CatalogError(
                f"{path} still lists {used['id'][0]}: {remedy}, release, and repeat; nothing was "
                "deleted"
            )


def remove_from_index(root: Path, traces: Traces) -> None:
    """Remove the images from index/ and from what it notes of its source, and compact it; delete
    their files in uploads/."""
    from irgen.catalog.uploads import delete_uploads
    from irgen.releases.forget import find_contents, forget_in_source, select_traces

    delete_uploads(root, traces.sha256s)
    folder = own_index.path_in(root)
    if not own_index.exists(root):
        return
    names = select_traces(find_contents(folder, traces.ids), traces)
    with project_index.open_index(folder, writable=True) as index:
        rows = index.view.find(names)
        index.remove([name for name, row in zip(names, rows, strict=True) if row >= 0])
        if not index.view.is_compact:  # what was removed before is there until then, too
            index.compact()
        forget_in_source(folder, traces)


def clear_caches(workspace: Workspace, traces: Traces) -> None:
    """Delete what caches and reports hold of the images. Caches that cannot tell are emptied, since
    they are quickly made again."""
    from irgen.catalog.forget import drop_rows, has_rows
    from irgen.encoding.cache import forget_arrays

    cache = workspace.cache
    drop_rows((cache / "catalog").glob("*.parquet"), traces.sha256s)
    for name in ("encodings", "query_features"):
        forget_arrays(cache / name, traces.sha256s)
    emptied = ["views", "answers", "serve/thumbnails", "serve/uploads"]
    emptied += [STUDY] if has_rows((cache / STUDY).rglob("*.parquet"), traces.sha256s) else []
    for name in emptied:
        shutil.rmtree(cache / name, ignore_errors=True)
    notes = [path for path in (cache / "download").iterdir() if path.name != "lock"]
    pages = [path for path in workspace.reports.rglob("*") if path.is_file()]
    logs = [path for path in (cache / "tracking").glob("*/*") if path.is_file()]
    for path in [*notes, *(path for path in pages + logs if is_trace(path, traces))]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_trace(path: Path, traces: Traces) -> bool:
    """Tell whether a file names one of the images."""
    return traces.pattern.search(path.read_bytes()) is not None


def forget_packed(workspace: Workspace, traces: Traces) -> None:
    """Wipe the images from the packed copy of the source."""
    from irgen.catalog.forget import forget_past

    forget_past(workspace.stage("download"), traces.sha256s)
