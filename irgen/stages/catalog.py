"""Turn the downloaded images into the catalogue: checked, labelled, and split into roles.

Time: N log N, for sorts by name, label and fingerprint. New images are decoded once.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from irgen.catalog import assembly, captions, manifest, texts
from irgen.catalog.check import SIDE, check_images
from irgen.catalog.datasets import protocols
from irgen.catalog.fingerprints import thumbnail
from irgen.catalog.formats import FORMATS, SETS, choose_format, read_format
from irgen.catalog.images.decode import decode_stored
from irgen.catalog.leaks import KINDS, count_leaks, find_leaks, format_leaks
from irgen.catalog.shards import Images, find_intact, shard_path
from irgen.catalog.splits import assign_roles, choose_inserted, choose_inserted_labels
from irgen.catalog.table import TEXTS, describe_similar_labels, describe_tables, write_table
from irgen.errors import ArtifactError, CatalogError, escape_controls
from irgen.files.records import write_sealed_json
from irgen.files.sealed import read_parquet, write_parquet
from irgen.files.workspace import Workspace
from irgen.params import Catalog, Params

PRINTED = 5  # rejections that are printed
NAMED = 3  # rejections or leaks that a message names


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/catalog``: a table for each of train, validation, database and queries,
    ``rejected.parquet`` (key, reason), ``leaks.parquet`` (columns of ``leaks.SCHEMA``),
    ``texts.parquet`` (texts of the images that are trained on; columns of ``texts.SCHEMA``) and
    ``protocol.json`` (format, protocol, its description, leaks by kind). Return counts.

    Images without a label are rejected if labels are used, and in published sets. With
    ``tokenizer.labels: clusters`` other sources may have such images; their label is null.

    Raises CatalogError if the source or its captions do not fit, if the format has no such
    protocol, if no usable, training, query or database image is left, and for leaks that are
    refused; ArtifactError if images are lost that models are trained on.
    """
    workspace.existing("download", manifest.NAME)
    folder, settings = workspace.stage("download"), params.catalog
    listed, past = manifest.read_with_past(folder)
    stored = Images(folder, listed, past)
    source_format = choose_format(listed, settings.format)
    if problem := assembly.explain_no_labels(source_format, params.tokenizer.labels):
        raise CatalogError(problem)
    protocol = protocols.choose_protocol(source_format, settings.protocol)
    images = protocols.apply_protocol(read_format(listed, source_format, stored.read), protocol)
    past = select_past_images(folder, past, source_format, settings)
    checked = check_images(
        stored,
        pl.concat([images["sha256"], past["sha256"]]),
        workspace.cache / "catalog",
        params.compute.threads,
    )
    facts = checked.drop("across", "down")
    images, past = (
        table.join(facts, on="sha256", how="left").sort("id") for table in (images, past)
    )
    is_set = source_format in SETS  # its lists label every image, and its folders are no classes
    optional = params.tokenizer.labels == "clusters" and not is_set
    refused = pl.lit(False) if optional else assembly.lacks_label()
    listed = listed.filter(~pl.col("key").str.ends_with("/")) if is_set else listed
    rejected = assembly.list_rejected(listed, images, refused)
    images = assembly.keep_usable(images, refused)
    if not len(images):
        raise CatalogError(_explain_rejections(rejected))
    split = protocols.describe_split(protocol, images["role"], settings.query_fraction)
    images = assign_roles(
        pl.concat([images, assembly.keep_usable(past, refused)], how="diagonal"),
        seed=params.seed,
        query_fraction=settings.query_fraction if protocol.draws else 0.0,
        validation_fraction=settings.validation_fraction,
    )
    late = choose_inserted(images, seed=params.seed, fraction=settings.inserted_fraction)
    late |= choose_inserted_labels(images, seed=params.seed, fraction=settings.inserted_labels)
    images = images.with_columns(late.alias("inserted"))
    copied = read_parquet(workspace.existing("download", captions.NAME))
    images, notes = captions.join_captions(assembly.nest_columns(images), copied)
    tables = assembly.build_tables(images, settings, protocol)
    present = images.filter(assembly.is_present())
    newest = int(present["revision"].to_numpy().max())
    assembly.check_tables(tables, newest, settings, protocol)
    draw = cache(lambda sha256: thumbnail(decode_stored(stored, sha256, 1, SIDE).image))
    prints = checked.select("sha256", "across", "down")
    leaks = find_leaks(tables, prints, draw, protocol.disjoint)
    counts = count_leaks(leaks)
    record = {
        "format": source_format,
        "protocol": settings.protocol,
        "says": split,
        "leaks": counts,
    }
    text_columns = texts.choose_columns(
        images,
        params.texts.columns,
        ("part",) if is_set else (),
        labelled=params.tokenizer.labels == "given",
    )
    output = workspace.stage("catalog")
    _write(output, tables, rejected, leaks, record)
    rows = assembly.choose_rows(settings, protocol)
    trained = images.filter(rows["train"] | rows["validation"])
    write_parquet(output / TEXTS, texts.collect_texts(trained, text_columns))
    if settings.leaks == "refuse" and len(leaks):  # after writing them, for people to look at
        raise CatalogError(_explain_leaks(leaks, output))
    metrics = assembly.measure_tables(tables, present, rejected)
    metrics |= {f"leaks/{kind}": count for kind, count in counts.items()}
    newer = pl.col("revision") > settings.training_revision
    if late.any():
        metrics["images/inserted"] = len(present.filter(pl.col("inserted") & ~newer))
    _print_counts(metrics, rejected, len(present), len(present.filter(newer)))
    print(f"  {describe_tables(tables['database'], tables['queries'])}")
    if text_columns:
        print(f"  texts of images: {', '.join(text_columns)}")
    for note in notes:
        print(f"  {escape_controls(note)}")
    _print_odd_labels(metrics, present)
    print(f"  protocol {protocols.describe_protocol(record)}; leaks: {format_leaks(counts)}")
    return metrics


def _write(
    output: Path,
    tables: dict[str, pl.DataFrame],
    rejected: pl.DataFrame,
    leaks: pl.DataFrame,
    record: dict[str, Any],
) -> None:
    for name, table in tables.items():
        write_table(output / f"{name}.parquet", table)
    write_parquet(output / "rejected.parquet", rejected)
    write_parquet(output / "leaks.parquet", leaks)
    write_sealed_json(output / "protocol.json", record)


def select_past_images(
    folder: Path, past: pl.DataFrame, source_format: str, settings: Catalog
) -> pl.DataFrame:
    """Return the images of ``past`` that were removed from the source since the training revision,
    as ``read_format`` does, with the revision of their removal, ``gone``.

    They are still trained on, and roles are drawn as if they were there. Without a shard, their
    bytes were deleted on purpose: they are left out. The table is empty for a published set, and if
    the past images do not fit a format that has changed: then training follows the source. Raises
    ArtifactError if the shard of an image that is trained on is missing or truncated.
    """
    past = past.filter(pl.col(manifest.GONE) > settings.training_revision)
    past = past.filter(pl.col("shard").is_not_null())
    is_lost = ~pl.col("shard").is_in(list(find_intact(folder, past)))
    lost = past.filter(is_lost & (pl.col("revision") <= settings.training_revision))
    if len(lost):
        raise ArtifactError(_explain_lost(lost, folder))
    past = past.filter(~is_lost)
    if source_format in FORMATS:
        try:
            return read_format(past, source_format)
        except CatalogError:
            pass
    return read_format(past.clear(), "folders")


def _explain_lost(lost: pl.DataFrame, folder: Path) -> str:
    shards = lost["shard"].unique().sort().to_list()
    more = f" and {len(shards) - NAMED} more" if len(shards) > NAMED else ""
    return (
        f"{len(lost):,} images that models are trained on have left the source, and their copies "
        f"are lost: {shard_path(folder, shards[0]).parent} lacks shard {', '.join(shards[:NAMED])}"
        f"{more}. Bring the shards back (dvc pull download), or set revision in training.yaml to "
        f"{manifest.read_revision(folder)[0]}, which trains on the images of now"
    )


def _explain_rejections(rejected: pl.DataFrame) -> str:
    rows = "; ".join(f"{key}: {reason}" for key, reason in rejected.head(NAMED).iter_rows())
    no_labels = assembly.NO_LABEL in rejected["reason"]
    remedy = assembly.GIVE_LABELS if no_labels else "give another source"
    return f"no usable image, all {len(rejected):,} are rejected ({rows}); {remedy}"


def _explain_leaks(leaks: pl.DataFrame, folder: Path) -> str:
    rows = leaks.head(NAMED).select("kind", "query", "image").iter_rows()
    examples = "; ".join(f"{KINDS[kind]}: {query} and {image}" for kind, query, image in rows)
    return (
        f"catalog.leaks is refuse, and there are leaks ({format_leaks(count_leaks(leaks))}), e.g. "
        f"{examples}; all are in {folder / 'leaks.parquet'}: take one of each pair out of the "
        "source, or set catalog.leaks to report"
    )


def _print_odd_labels(metrics: dict[str, float], present: pl.DataFrame) -> None:
    """Print how many labels have one image only, and which labels are nearly the same."""
    if single := metrics["labels_with_one_image"]:
        labels, them = ("1 label has", "it") if single == 1 else (f"{single:,} labels have", "they")
        print(f"  {labels} one image only: {them} can be found, but not measured")
    if alike := describe_similar_labels(present):
        print(f"  {alike}; if they are one class, give them one name in the source")


def _print_counts(
    metrics: dict[str, float], rejected: pl.DataFrame, usable: int, newer: int
) -> None:
    train, validation = metrics["images/train"], metrics["images/validation"]
    labels = f"of {metrics['labels']:,} labels" if metrics["labels"] else "without labels"
    line = f"{usable:,} images {labels}: {train:,} train, {validation:,} validation"
    if late := metrics.get("images/inserted"):
        line += f"; {late:,} of the database not trained on, as if inserted later"
    if newer:
        line += f"; {newer:,} newer than the training revision"
    print(f"{line}; {len(rejected):,} rejected")
    for key, reason in rejected.head(PRINTED).iter_rows():
        print(f"  rejected {escape_controls(f'{key}: {reason}')}")
    if len(rejected) > PRINTED:
        print(f"  … and {len(rejected) - PRINTED:,} more, in rejected.parquet")
