"""Survey a source before it is copied: list it all, and open some of its images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from PIL import Image

from irgen.catalog import manifest
from irgen.catalog.column_types import settle_types
from irgen.catalog.columns import METADATA
from irgen.catalog.datasets.annotations import is_annotation
from irgen.catalog.formats import NO_FOLDERS, read_format, recognise_format
from irgen.catalog.images.decode import Decoded, decode_file
from irgen.catalog.sources.listing import Entry, Listing, Source
from irgen.errors import CatalogError, ImageError, UnreadableError

SAMPLE = 64  # images that are opened
SIDE = 256  # pixels of their short side that are looked at
GREY = 6  # largest difference of a grey picture's colours, which JPEG may change a little
EXTREME = 0.15  # share of the range, at both ends, that counts as ink or paper


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Images that were opened. `sizes`: width and height of each; `grey` and `drawings`: shares
    without colour, and of ink on paper; `bytes`: mean of a file; `damaged`: reasons by name."""

    sizes: tuple[tuple[int, int], ...]
    grey: float
    drawings: float
    bytes: float
    damaged: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Content of a source. `labels`: number of images by label, empty without labels, and
    `no_labels` says why; `roles`: number of images by role; `columns`: of a list, with their types;
    `skipped`, `ignored`, `notes`: as in the listing; `left_out`: number of images by reason."""

    images: int
    format: str
    labels: Mapping[str, int]
    no_labels: str
    roles: Mapping[str, int]
    columns: Mapping[str, str]
    skipped: Mapping[str, int]
    ignored: Mapping[str, int]
    notes: tuple[str, ...]
    left_out: Mapping[str, int]
    sample: Sample


def survey_source(source: Source) -> Survey:
    """Return what a source holds. Raises SourceError if it cannot be listed or has no image, and
    CatalogError if none of the images opened can be read."""
    listing = settle_types(source.load(), source)
    rows, annotations, sample = _open_sample(listing)
    table = _tabulate(rows, listing)
    source_format, images, problem = _read_labels(table, annotations)
    if not sample.sizes:
        name, reason = next(iter(sample.damaged.items()))
        raise CatalogError(
            f"{source.name}: none of {len(sample.damaged)} images can be read, e.g. {name}: "
            f"{reason}; give another source"
        )
    labelled = images.drop_nulls("label")
    counts = dict(sorted(Counter(labelled["label"]).items(), key=lambda item: -item[1]))
    return Survey(
        images=len(images),
        format=source_format,
        labels=counts,
        no_labels=problem or ("" if counts else NO_FOLDERS),
        roles=dict(Counter(images["role"].drop_nulls())),
        columns=_describe_columns(listing),
        skipped=listing.skipped,
        ignored=listing.ignored,
        notes=listing.notes,
        left_out=_count_left_out(listing, table, len(images) - len(labelled) if counts else 0),
        sample=sample,
    )


def _open_sample(listing: Listing) -> tuple[list[manifest.Row], dict[str, bytes], Sample]:
    """Return a row for each entry, the annotation files, and what every n-th image is like."""
    step = max(1, listing.count // SAMPLE)
    rows: list[manifest.Row] = []
    annotations: dict[str, bytes] = {}
    opened: dict[str, bytes] = {}
    problems: dict[str, str] = {}
    for number, entry in enumerate(listing.entries):
        rows.append(_make_row(entry))
        if is_annotation(entry.key):
            annotations[entry.key] = _read(entry)
        elif entry.problem is not None:
            problems[entry.key] = entry.problem
        elif number % step == 0 and entry.read is not None:
            try:
                opened[entry.key] = _read(entry)
            except UnreadableError as error:
                problems[entry.key] = str(error)
    sample = describe_sample(opened)
    return rows, annotations, replace(sample, damaged={**sample.damaged, **problems})


def _read(entry: Entry) -> bytes:
    content = entry.read() if entry.read else None
    return content if isinstance(content, bytes) else content.content if content else b""


def describe_sample(contents: Mapping[str, bytes]) -> Sample:
    """Return what image files, by name, are like."""
    pictures: list[Decoded] = []
    damaged: dict[str, str] = {}
    for name, content in contents.items():
        try:
            pictures.append(decode_file(content, 3, SIDE))
        except ImageError as error:
            damaged[name] = str(error)
    return Sample(
        sizes=tuple((picture.width, picture.height) for picture in pictures),
        grey=_mean([is_grey(picture.image) for picture in pictures]),
        drawings=_mean([is_drawing(picture.image) for picture in pictures]),
        bytes=_mean([len(content) for content in contents.values()]),
        damaged=damaged,
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def is_grey(picture: Image.Image) -> bool:
    """Tell whether an RGB picture has no colour."""
    picture = picture.copy()
    picture.thumbnail((64, 64))
    pixels = np.asarray(picture).astype(np.int16)  # (h, w, 3)
    return bool((pixels.max(-1) - pixels.min(-1)).max() <= GREY)


def is_drawing(picture: Image.Image) -> bool:
    """Tell whether a picture is ink on paper: grey, and nine of ten pixels nearly as dark as the
    darkest or as light as the lightest."""
    pixels = np.asarray(picture.convert("L")).astype(np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    margin = EXTREME * (high - low)
    extreme = (pixels <= low + margin) | (pixels >= high - margin)
    return high - low > 64 and bool(extreme.mean() >= 0.9) and is_grey(picture)


def _make_row(entry: Entry) -> manifest.Row:
    is_readable = entry.read is not None
    return manifest.Row(
        key=entry.key,
        size=0,
        etag="",
        sha256=entry.key if is_readable else None,  # stands for the content, which is not read
        revision=1,
        shard=None,
        offset=None,
        version=None,
        problem=entry.problem,
    )


def _tabulate(rows: list[manifest.Row], listing: Listing) -> pl.DataFrame:
    table = pl.DataFrame(rows, schema=manifest.SCHEMA, orient="row")
    if listing.columns is not None:
        table = table.join(listing.columns, on="key", how="left")
    return table.sort("key")


def _read_labels(
    table: pl.DataFrame, annotations: Mapping[str, bytes]
) -> tuple[str, pl.DataFrame, str]:
    """Return the format, the images with label and role, and why there are no labels, if so."""
    source_format = recognise_format(table)
    try:
        return source_format, read_format(table, source_format, annotations.__getitem__), ""
    except CatalogError as error:
        if source_format != "folders":
            raise
        return "images", read_format(table, "images"), str(error).partition(";")[0]


def _describe_columns(listing: Listing) -> dict[str, str]:
    if listing.columns is None or METADATA not in listing.columns.columns:
        return {}
    return {
        name: "text" if kind == pl.String else str(kind).lower()
        for name, kind in listing.columns[METADATA].struct.schema.items()
    }


def _count_left_out(listing: Listing, table: pl.DataFrame, unlabelled: int) -> dict[str, int]:
    reasons = {
        "in the list, but not there": len(manifest.absent(table)),
        "cannot be had": len(manifest.unreadable(table)),
        "without a label": unlabelled,
        "class folders without an image": len(listing.empty_folders),
    }
    return {reason: count for reason, count in reasons.items() if count}
