"""Turns the downloaded images into the catalogue: checked, labelled, and sorted into roles."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.check import check_images
from irgen.catalog.datasets import protocols
from irgen.catalog.datasets.protocols import Protocol
from irgen.catalog.fingerprints import thumbnail
from irgen.catalog.formats import FORMATS, SETS, read_format, recognise
from irgen.catalog.images import decode
from irgen.catalog.leaks import KINDS, count_leaks, find_leaks, told
from irgen.catalog.shards import Images, intact
from irgen.catalog.splits import assign_roles, inserted
from irgen.catalog.table import SCHEMA, label_counts, write_table
from irgen.errors import CatalogError
from irgen.files import atomic, write_json
from irgen.params import Catalog, Params
from irgen.workspace import Workspace

Log = Callable[[dict[str, float], int], None]

SHOWN = 5  # rejections printed
NAMED = 3  # leaks named where they are refused
INNER = ("revision", manifest.GONE, "inserted")  # columns for this stage alone
NO_LABEL = "the list gives it no label"
WITHOUT = "give the source labels, or set tokenizer.labels to clusters and pairs.rule to near"
REJECTED = pl.Schema({"key": pl.String, "reason": pl.String})


def run(params: Params, workspace: Workspace, log: Log) -> dict[str, float]:
    """Writes ``data/catalog``: a table for each of train, validation, database and queries,
    ``rejected.parquet`` (key, reason), ``leaks.parquet`` (columns of ``leaks.SCHEMA``) and
    ``protocol.json`` (format, protocol, what it says, leaks by kind). Metrics: images a table,
    labels, rejections, duplicates, leaks.

    Images without a label are rejected where labels teach, and of published sets; with
    ``tokenizer.labels: clusters`` those of other sources are taken, and their label is null.

    Raises CatalogError if the source's format is not what it should be or has no such protocol, if
    no usable image, no training image, no query or no database image is left, or for leaks that
    are to be refused.
    """
    workspace.existing("download", manifest.NAME)
    folder, settings = workspace.stage("download"), params.catalog
    listed = manifest.read(folder)
    stored = Images(folder)
    form = recognise(listed) if settings.format == "auto" else settings.format
    if form == "images" and params.tokenizer.labels == "given":
        raise CatalogError(
            f"the source's images lie in no class folders, so none has a label; {WITHOUT}"
        )
    protocol = protocols.choose(form, settings.protocol)
    images = protocols.apply(read_format(listed, form, stored.read), protocol)
    before = past(folder, form, settings)
    optional = params.tokenizer.labels == "clusters" and form not in SETS  # their lists name all
    refused = pl.lit(False) if optional else _nameless()
    checked = check_images(
        stored,
        [*images.filter(~refused)["sha256"], *before["sha256"]],
        workspace.cache / "catalog",
        params.compute.threads,
    )
    looks = checked.drop("across", "down")
    images, before = (
        each.join(looks, on="sha256", how="left").sort("id") for each in (images, before)
    )
    if form in SETS:  # its folders are no classes
        listed = listed.filter(~pl.col("key").str.ends_with("/"))
    usable, rejected = _sort_out(listed, images, refused)
    if not len(usable):
        raise CatalogError(_nothing_usable(rejected))
    once = _named(before.filter(pl.col("reason").is_null() & ~refused)).drop("reason")
    ever = assign_roles(
        pl.concat([usable, once], how="diagonal"),
        seed=params.seed,
        query_fraction=settings.query_fraction if protocol.draws else 0.0,
        validation_fraction=settings.validation_fraction,
        trained_until=settings.training_revision,
    )
    late = inserted(ever, seed=params.seed, fraction=settings.inserted_fraction)
    ever = ever.with_columns(late.alias("inserted"))
    usable, tables = ever.filter(_there()), tables_of(ever, settings, protocol)
    _check_tables(tables, usable, settings, protocol)
    seen = cache(lambda sha256: thumbnail(decode(stored.read(sha256), 1)))
    prints = checked.select("sha256", "across", "down")
    leaks = find_leaks(tables, prints, seen, protocol.disjoint)
    counts = count_leaks(leaks)
    about = {"format": form, "protocol": settings.protocol, "says": protocol.says, "leaks": counts}
    _write(workspace.stage("catalog"), tables, {"rejected": rejected, "leaks": leaks}, about)
    if settings.leaks == "refuse" and len(leaks):  # all of them are to be looked at by now
        raise CatalogError(_refused(leaks, workspace.stage("catalog")))
    metrics = measure(tables, usable, rejected)
    metrics |= {f"leaks/{kind}": count for kind, count in counts.items()}
    newer = pl.col("revision") > settings.training_revision
    if settings.inserted_fraction:
        metrics["images/inserted"] = len(usable.filter(pl.col("inserted") & ~newer))
    _tell(metrics, rejected, len(usable), len(usable.filter(newer)))
    print(f"  protocol {protocols.in_words(about)}; leaks: {told(counts)}")
    return metrics


def past(folder: Path, form: str, settings: Catalog) -> pl.DataFrame:
    """The images that have gone since the training revision, as ``read_format`` has them, and
    ``gone``: those that were there at it are trained on as if they still were, and roles are drawn
    as if nothing had gone. Only those whose bytes are there; none of a published set, and none if
    they do not fit the format that the source has now: then training follows the source."""
    gone = manifest.read_past(folder).filter(pl.col(manifest.GONE) > settings.training_revision)
    gone = gone.filter(pl.col("shard").is_in(list(intact(folder, gone))))
    none = read_format(gone.clear(), "folders")
    if form not in FORMATS:
        return none
    try:
        return read_format(gone, form)
    except CatalogError:
        return none


def _there() -> pl.Expr:
    """Whether an image is there, and not one of the past."""
    return pl.col(manifest.GONE).is_null()


def _nameless() -> pl.Expr:
    """Whether an image has no label."""
    return pl.col("label").fill_null("").str.strip_chars() == ""


def _named(images: pl.DataFrame) -> pl.DataFrame:
    """The images with null as their label if it is blank."""
    return images.with_columns(label=pl.when(~_nameless()).then(pl.col("label")))


def _sort_out(
    listed: pl.DataFrame, images: pl.DataFrame, refused: pl.Expr
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The usable images, and the rejected keys with their reasons, sorted by key; ``refused`` are
    those for want of a label."""
    reason = pl.when(refused).then(pl.lit(NO_LABEL)).otherwise(pl.col("reason"))
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
    return _named(images.filter(pl.col("reason").is_null()).drop("reason")), rejected


def tables_of(ever: pl.DataFrame, settings: Catalog, protocol: Protocol) -> dict[str, pl.DataFrame]:
    """The four tables of the images that are there, or have gone since the training revision.

    Train and validation are what the catalogue held at that revision, whatever has become of it,
    train without images that are ``inserted``;
    database and queries what it holds now. Only these carry metadata: a corrected price must not
    bring about a new training.
    """
    metadata = [name for name in ever.columns if name not in (*SCHEMA, *INNER)]
    trained = pl.col("revision") <= settings.training_revision
    role, plain = pl.col("role"), SCHEMA.names()
    rows = {
        "train": ((role == "train") & trained & ~pl.col("inserted"), plain),
        "validation": ((role == "validation") & trained, plain),
        "database": (
            role.is_in(protocol.database or settings.database) & _there(),
            [*plain, *metadata],
        ),
        "queries": ((role == "query") & _there(), [*plain, *metadata]),
    }
    return {
        name: ever.filter(which)
        .select(columns)
        .with_columns(role.replace({protocols.GALLERY: "train"}))
        .sort("id")
        for name, (which, columns) in rows.items()
    }


def _check_tables(
    tables: dict[str, pl.DataFrame], usable: pl.DataFrame, settings: Catalog, protocol: Protocol
) -> None:
    if not len(tables["train"]):
        raise CatalogError(
            f"no training image: no usable image of role train was there by revision "
            f"{settings.training_revision}; give the source training images, or raise "
            f"catalog.training_revision (the source is at {usable['revision'].to_numpy().max()})"
        )
    if not len(tables["queries"]) and not protocol.draws:
        raise CatalogError(
            f"no query: protocol {settings.protocol!r} ({protocol.says}) finds none in the source; "
            "add the images that it asks with, or set another catalog.protocol"
        )
    if not len(tables["queries"]):
        raise CatalogError(
            "no query: the source names none and catalog.query_fraction "
            f"{settings.query_fraction:g} takes none from any label; raise it, or add images"
        )
    searched = protocol.database or settings.database
    if settings.inserted_fraction and "train" not in searched:
        raise CatalogError(
            f"catalog.inserted_fraction is {settings.inserted_fraction:g}, but training images are "
            f"not searched: the database has the roles {list(searched)}; set it to 0, or add train "
            "to catalog.database"
        )
    if not len(tables["database"]):
        roles = (
            f"the protocol's {list(protocol.database)}"
            if protocol.database
            else f"catalog.database {list(settings.database)}"
        )
        raise CatalogError(f"no database image: none has a role in {roles}")


def _nothing_usable(rejected: pl.DataFrame) -> str:
    shown = "; ".join(f"{key}: {reason}" for key, reason in rejected.head(3).iter_rows())
    remedy = WITHOUT if NO_LABEL in rejected["reason"] else "give another source"
    return f"no usable image, all {len(rejected):,} are rejected ({shown}); {remedy}"


def _refused(leaks: pl.DataFrame, folder: Path) -> str:
    rows = leaks.head(NAMED).select("kind", "query", "image").iter_rows()
    shown = "; ".join(f"{KINDS[kind]}: {query} and {image}" for kind, query, image in rows)
    return (
        f"catalog.leaks is refuse, and there are leaks ({told(count_leaks(leaks))}), e.g. {shown}; "
        f"all are in {folder / 'leaks.parquet'}: take one of each pair out of the source, or set "
        "catalog.leaks to report"
    )


def _write(
    folder: Path,
    tables: dict[str, pl.DataFrame],
    others: dict[str, pl.DataFrame],
    about: dict[str, Any],
) -> None:
    for name, table in tables.items():
        write_table(folder / f"{name}.parquet", table)
    for name, table in others.items():
        with atomic(folder / f"{name}.parquet") as path:
            table.rechunk().write_parquet(path)
    write_json(folder / "protocol.json", about)


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
    if held := metrics.get("images/inserted"):
        line += f"; {held:,} of the database not trained on, as if inserted later"
    if newer:
        line += f"; {newer:,} newer than the training revision"
    print(f"{line}; {len(rejected):,} rejected")
    for key, reason in rejected.head(SHOWN).iter_rows():
        print(f"  rejected {key}: {reason}")
    if len(rejected) > SHOWN:
        print(f"  … and {len(rejected) - SHOWN:,} more, in rejected.parquet")
