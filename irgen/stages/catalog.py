"""Turns the downloaded images into the catalogue: checked, labelled, and sorted into roles."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.check import check_images
from irgen.catalog.formats import read_format
from irgen.catalog.shards import Images, intact
from irgen.catalog.splits import assign_roles
from irgen.catalog.table import SCHEMA, label_counts, write_table
from irgen.errors import CatalogError
from irgen.files import atomic
from irgen.params import Catalog, Params
from irgen.workspace import Workspace

Log = Callable[[dict[str, float], int], None]

SHOWN = 5  # rejections printed
REJECTED = pl.Schema({"key": pl.String, "reason": pl.String})


def run(params: Params, workspace: Workspace, log: Log) -> dict[str, float]:
    """Writes ``data/catalog``: a table for each of train, validation, database and queries, and
    ``rejected.parquet`` (key, reason). Metrics: images a table, labels, rejections, duplicates.

    Raises CatalogError if the source's format is not what it should be, or if no usable image, no
    training image, no query or no database image is left.
    """
    workspace.existing("download", manifest.NAME)
    folder, settings = workspace.stage("download"), params.catalog
    listed = manifest.read(folder)
    images, before = read_format(listed, settings.format), past(folder, settings)
    checked = check_images(
        Images(folder),
        [*images["sha256"], *before["sha256"]],
        workspace.cache / "catalog",
        params.compute.threads,
    )
    images, before = (
        each.join(checked, on="sha256", how="left").sort("id") for each in (images, before)
    )
    usable, rejected = _sort_out(listed, images)
    if not len(usable):
        raise CatalogError(_nothing_usable(rejected))
    once = before.filter(pl.col("reason").is_null() & ~_nameless()).drop("reason")
    ever = assign_roles(
        pl.concat([usable, once], how="diagonal"),
        seed=params.seed,
        query_fraction=settings.query_fraction,
        validation_fraction=settings.validation_fraction,
    )
    usable, tables = ever.filter(_there()), tables_of(ever, settings)
    _check_tables(tables, usable, settings)
    _write(workspace.stage("catalog"), tables, rejected)
    metrics = measure(tables, usable, rejected)
    newer = usable.filter(pl.col("revision") > settings.training_revision)
    _tell(metrics, rejected, len(usable), len(newer))
    return metrics


def past(folder: Path, settings: Catalog) -> pl.DataFrame:
    """The images that have gone since the training revision, as ``read_format`` has them, and
    ``gone``: those that were there at it are trained on as if they still were, and roles are drawn
    as if nothing had gone. Only those whose bytes are there; none if they do not fit the format
    that the source has now: then training follows the source."""
    gone = manifest.read_past(folder).filter(pl.col(manifest.GONE) > settings.training_revision)
    gone = gone.filter(pl.col("shard").is_in(list(intact(folder, gone))))
    try:
        return read_format(gone, settings.format)
    except CatalogError:
        return read_format(gone.clear(), settings.format)


def _there() -> pl.Expr:
    """Whether an image is there, and not one of the past."""
    return pl.col(manifest.GONE).is_null()


def _nameless() -> pl.Expr:
    """Whether an image has no label."""
    return pl.col("label").fill_null("").str.strip_chars() == ""


def _sort_out(listed: pl.DataFrame, images: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The usable images, and the rejected keys with their reasons, sorted by key."""
    reason = (
        pl.when(_nameless()).then(pl.lit("the list gives it no label")).otherwise(pl.col("reason"))
    )
    images = images.with_columns(reason.alias("reason"))
    absent = listed.filter(pl.col("sha256").is_null()).select(
        "key",
        pl.when(pl.col("key").str.ends_with("/"))
        .then(pl.lit("a class folder without an image"))
        .otherwise(pl.lit("the list names it, but the file is not there"))
        .alias("reason"),
    )
    bad = images.filter(pl.col("reason").is_not_null()).select(
        pl.col("path").alias("key"), "reason"
    )
    rejected = pl.concat([absent, bad]).cast(REJECTED).sort("key")
    return images.filter(pl.col("reason").is_null()).drop("reason"), rejected


def tables_of(ever: pl.DataFrame, settings: Catalog) -> dict[str, pl.DataFrame]:
    """The four tables of the images that are there, or have gone since the training revision.

    Train and validation are what the catalogue held at that revision, whatever has become of it;
    database and queries what it holds now. Only these carry metadata: a corrected price must not
    bring about a new training.
    """
    metadata = [name for name in ever.columns if name not in (*SCHEMA, "revision", manifest.GONE)]
    trained = pl.col("revision") <= settings.training_revision
    role, plain = pl.col("role"), SCHEMA.names()
    rows = {
        "train": ((role == "train") & trained, plain),
        "validation": ((role == "validation") & trained, plain),
        "database": (role.is_in(settings.database) & _there(), [*plain, *metadata]),
        "queries": ((role == "query") & _there(), [*plain, *metadata]),
    }
    return {
        name: ever.filter(which).select(columns).sort("id")
        for name, (which, columns) in rows.items()
    }


def _check_tables(tables: dict[str, pl.DataFrame], usable: pl.DataFrame, settings: Catalog) -> None:
    if not len(tables["train"]):
        raise CatalogError(
            f"no training image: no usable image of role train was there by revision "
            f"{settings.training_revision}; give the source training images, or raise "
            f"catalog.training_revision (the source is at {usable['revision'].to_numpy().max()})"
        )
    if not len(tables["queries"]):
        raise CatalogError(
            "no query: the source names none and catalog.query_fraction "
            f"{settings.query_fraction:g} takes none from any label; raise it, or add images"
        )
    if not len(tables["database"]):
        raise CatalogError(
            f"no database image: none has a role in catalog.database {list(settings.database)}"
        )


def _nothing_usable(rejected: pl.DataFrame) -> str:
    shown = "; ".join(f"{key}: {reason}" for key, reason in rejected.head(3).iter_rows())
    return f"no usable image, all {len(rejected):,} are rejected ({shown}); give another source"


def _write(folder: Path, tables: dict[str, pl.DataFrame], rejected: pl.DataFrame) -> None:
    for name, table in tables.items():
        write_table(folder / f"{name}.parquet", table)
    with atomic(folder / "rejected.parquet") as path:
        rejected.rechunk().write_parquet(path)


def measure(
    tables: dict[str, pl.DataFrame], usable: pl.DataFrame, rejected: pl.DataFrame
) -> dict[str, float]:
    """Images and duplicates a table, labels, and queries whose very content is in the database
    under another id."""
    counts = label_counts(usable)
    is_folder = rejected["key"].str.ends_with("/")
    both = tables["queries"].join(tables["database"].select("id", "sha256"), on="sha256")
    sizes = {f"images/{name}": len(table) for name, table in tables.items()}
    duplicates = {
        f"duplicates/{name}": len(table) - table["sha256"].n_unique()
        for name, table in tables.items()
    }
    return {
        **sizes,
        "images/rejected": int((~is_folder).sum()),
        "labels": len(counts),
        "labels_with_one_image": int((counts["count"] == 1).sum()),
        "labels_without_image": int(is_folder.sum()),
        "queries_in_database": both.filter(pl.col("id") != pl.col("id_right"))["id"].n_unique(),
        **duplicates,
    }


def _tell(metrics: dict[str, float], rejected: pl.DataFrame, usable: int, newer: int) -> None:
    sizes = ", ".join(
        f"{metrics[f'images/{name}']:,} {name}"
        for name in ("train", "validation", "database", "queries")
    )
    line = f"{usable:,} images of {metrics['labels']:,} labels: {sizes}"
    if newer:
        line += f"; {newer:,} newer than the training revision"
    print(f"{line}; {len(rejected):,} rejected")
    for key, reason in rejected.head(SHOWN).iter_rows():
        print(f"  rejected {key}: {reason}")
    if len(rejected) > SHOWN:
        print(f"  … and {len(rejected) - SHOWN:,} more, in rejected.parquet")
