"""Delete the releases that hold images to forget: here, in the bucket and in MLflow's registry."""

from contextlib import closing
from pathlib import Path

import polars as pl

from irgen.catalog.forget import Traces
from irgen.errors import ReleaseError
from irgen.index.copying import read_source, write_source
from irgen.index.database import Database
from irgen.index.index import Index
from irgen.index.rows import hash_ids
from irgen.params import Params
from irgen.releases import registry, remote, store
from irgen.releases.release import Release


def find_contents(index: Path, ids: frozenset[str]) -> dict[str, str]:
    """Return the content hash of each of these images that an index holds; "" if it has none, or
    if the image was removed since the index was compacted."""
    names = sorted(ids)
    keys = hash_ids(names).tolist()
    with Index.open(index) as opened, closing(Database(index)) as database:
        view = opened.view
        rows = view.find(names)
        table = view.take(rows[rows >= 0])
        removed = {key for key, name in database.find(keys).items() if name is None}
    contents = {name: "" for name, key in zip(names, keys, strict=True) if key in removed}
    return contents | _read_contents(table)


def find_in_source(own: Path, ids: frozenset[str]) -> dict[str, str]:
    """Return the content hash of each of these images that the source of the copy at ``own`` held
    when it was copied; "" if it has none."""
    base = read_source(own)
    return {} if base is None else _read_contents(base.filter(pl.col("id").is_in(list(ids))))


def _read_contents(table: pl.DataFrame) -> dict[str, str]:
    """Return the content hash of each image of a table by id; "" if it has none."""
    hashes = table["sha256"].fill_null("") if "sha256" in table.columns else [""] * len(table)
    return dict(zip(table["id"], hashes, strict=True))


def select_traces(contents: dict[str, str], traces: Traces) -> list[str]:
    """Return the ids of the images that are to be forgotten among these ``contents``, which are
    hashes by id: those with one of the hashes, and those without any."""
    return [name for name, sha256 in contents.items() if not sha256 or sha256 in traces.sha256s]


def forget_in_source(own: Path, traces: Traces) -> None:
    """Delete what the copy at ``own`` notes of these images of its source."""
    names = select_traces(find_in_source(own, traces.ids), traces)
    if names and (base := read_source(own)) is not None:
        write_source(own, base.filter(~pl.col("id").is_in(names)))


def holds(index: Path, traces: Traces) -> bool:
    """Tell whether an index holds one of the images."""
    return bool(select_traces(find_contents(index, traces.ids), traces))


def list_holding(releases: Path, traces: Traces) -> list[Release]:
    """Return the releases that hold one of the images. Raise ReleaseError if one is served."""
    champion = store.read_champion(releases)
    holding = [old for old in store.list_releases(releases) if holds(releases / old.name, traces)]
    if champion and any(old.version == champion.version for old in holding):
        raise ReleaseError(
            f"release {champion.version}, which is served, holds such an image; nothing was "
            "deleted: release an index without it first (dvc repro, then irgen release)"
        )
    return holding


def delete_releases(root: Path, params: Params, holding: list[Release]) -> None:
    """Delete releases here, in the bucket and in the registry. Raise SourceError or TrackingError
    if one of these does not answer; then repeat."""
    releases = store.path_in(root)
    with store.lock(releases):
        for old in holding:
            if params.release.remote:
                client = remote.connect(params.release.endpoint)
                remote.delete_release(client, params.release.remote, old.name)
            registry.forget_release(root, params.release, old, with_alias=True)
            store.delete_release(releases, old)
