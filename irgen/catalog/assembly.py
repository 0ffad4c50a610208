"""Assemble the catalogue: the usable images, the rejected ones, and the four tables."""

import polars as pl

from irgen.catalog.columns import METADATA, nest
from irgen.catalog.datasets.protocols import GALLERY, Protocol
from irgen.catalog.formats import NO_FOLDERS
from irgen.catalog.manifest import GONE
from irgen.catalog.table import SCHEMA, label_counts
from irgen.errors import CatalogError
from irgen.params import Catalog

REJECTED = pl.Schema({"key": pl.String, "reason": pl.String})
NO_LABEL = "neither a class folder nor a list gives it a label"
GIVE_LABELS = "give the source labels, or set tokenizer.labels to clusters and pairs.rule to near"


def explain_no_labels(source_format: str, labels: str) -> str:
    """Say that no image of a source of this format has a label, with the remedy, if
    tokenizer.labels needs labels; else ""."""
    if source_format != "images" or labels != "given":
        return ""
    return f"{NO_FOLDERS}, so none has a label; {GIVE_LABELS}"


def lacks_label() -> pl.Expr:
    """Return the rows without a label, or with a blank one."""
    return pl.col("label").fill_null("").str.strip_chars() == ""


def is_present() -> pl.Expr:
    """Return the rows whose image is still in the source."""
    return pl.col(GONE).is_null()


def keep_usable(images: pl.DataFrame, refused: pl.Expr) -> pl.DataFrame:
    """Return the images (columns ``label``, ``reason`` …) that are not rejected, without the
    reason; blank labels become null. ``refused``: rows that are rejected without a label."""
    usable = images.filter(pl.col("reason").is_null() & ~refused).drop("reason")
    return usable.with_columns(label=pl.when(~lacks_label()).then(pl.col("label")))


def list_rejected(listed: pl.DataFrame, images: pl.DataFrame, refused: pl.Expr) -> pl.DataFrame:
    """Return the listed images that are not usable, columns of REJECTED, sorted by key."""
    absent = listed.filter(pl.col("sha256").is_null()).select(
        "key",
        pl.when(pl.col("key").str.ends_with("/"))
        .then(pl.lit("a class folder without an image"))
        .when(pl.col("problem").is_not_null())
        .then(pl.col("problem"))
        .otherwise(pl.lit("the list names it, but the file is not there"))
        .alias("reason"),
    )
    reason = pl.when(refused).then(pl.lit(NO_LABEL)).otherwise(pl.col("reason"))
    bad = images.select(pl.col("path").alias("key"), reason.alias("reason")).drop_nulls("reason")
    return pl.concat([absent, bad]).cast(REJECTED).sort("key")


def nest_columns(images: pl.DataFrame) -> pl.DataFrame:
    """Return images with all columns but ours nested in ``metadata``."""
    ours = (*SCHEMA.names(), "revision", GONE, "inserted")
    return images if METADATA in images.columns else nest(images, ours)


def build_tables(
    images: pl.DataFrame, settings: Catalog, protocol: Protocol
) -> dict[str, pl.DataFrame]:
    """Return the four tables of images that are present, or have gone since the training revision.
    The user's columns are nested (``nest_columns``).

    Train and validation hold the images of that revision, removed ones too, but for ``inserted``
    images. Database and queries hold the present images. Only these two have the
    user's columns, so that a corrected price causes no training.
    """
    chosen = choose_rows(settings, protocol)
    metadata = [name for name in images.columns if name == METADATA]
    return {
        name: images.filter(rows)
        .select(*SCHEMA.names(), *(metadata if name in ("database", "queries") else []))
        .with_columns(pl.col("role").replace({GALLERY: "train"}))
        .sort("id")
        for name, rows in chosen.items()
    }


def choose_rows(settings: Catalog, protocol: Protocol) -> dict[str, pl.Expr]:
    """Return which images (columns ``role``, ``revision``, ``gone``, ``inserted``) are in each of
    the four tables."""
    trained, role = pl.col("revision") <= settings.training_revision, pl.col("role")
    return {
        "train": (role == "train") & trained & ~pl.col("inserted"),
        "validation": (role == "validation") & trained & ~pl.col("inserted"),
        "database": role.is_in(protocol.database or settings.database) & is_present(),
        "queries": (role == "query") & is_present(),
    }


def check_tables(
    tables: dict[str, pl.DataFrame], newest: int, settings: Catalog, protocol: Protocol
) -> None:
    """Raise CatalogError for an empty train, database or queries table, and for inserted images
    that are not searched. ``newest``: the latest revision of a usable image."""
    if not len(tables["train"]):
        raise CatalogError(
            f"no training image: no usable image of role train was there by revision "
            f"{settings.training_revision}; give the source training images, or raise "
            f"revision in training.yaml (the source is at {newest})"
        )
    if not len(tables["queries"]) and not protocol.draws:
        raise CatalogError(
            f"no query: protocol {settings.protocol!r} ({protocol.says}) has none in the source; "
            "add query images, or set another catalog.protocol"
        )
    if not len(tables["queries"]):
        raise CatalogError(
            "no query: the source names none and catalog.query_fraction "
            f"{settings.query_fraction:g} takes none from any label; raise it, or add images"
        )
    searched = list(protocol.database or settings.database)
    for key in ("inserted_fraction", "inserted_labels"):
        if (share := getattr(settings, key)) and "train" not in searched:
            raise CatalogError(
                f"catalog.{key} is {share:g}, but training images are not searched: the database "
                f"has the roles {searched}; set it to 0, or add train to catalog.database"
            )
    if not len(tables["database"]):
        setting = "the protocol's" if protocol.database else "catalog.database"
        raise CatalogError(f"no database image: none has a role in {setting} {searched}")


def measure_tables(
    tables: dict[str, pl.DataFrame], usable: pl.DataFrame, rejected: pl.DataFrame
) -> dict[str, float]:
    """Return the number of images and duplicates of each table, of labels, of rejections, of
    queries whose content is in the database under another id, and of labels that can be found and
    not measured: the database has one image of them, copies not counted."""
    counts = label_counts(tables["database"].unique("sha256"))
    folders = int(rejected["key"].str.ends_with("/").sum())
    pairs = tables["queries"].join(tables["database"].select("id", "sha256"), on="sha256")
    return {
        **{f"images/{name}": len(table) for name, table in tables.items()},
        "images/rejected": len(rejected) - folders,
        "labels": usable["label"].drop_nulls().n_unique(),
        "labels_with_one_image": int((counts["count"] == 1).sum()),
        "labels_without_image": folders,
        "queries_in_database": pairs.filter(pl.col("id") != pl.col("id_right"))["id"].n_unique(),
        **{f"duplicates/{k}": len(t) - t["sha256"].n_unique() for k, t in tables.items()},
    }
