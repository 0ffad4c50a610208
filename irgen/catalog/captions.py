"""Captions: texts of images from a file of their own, which join the catalogue as columns."""

from pathlib import Path

import polars as pl

from irgen.catalog.columns import METADATA, list_fields
from irgen.catalog.sources.list_text import decode_list, read_texts
from irgen.catalog.texts import HAS_WORD
from irgen.errors import CatalogError, SourceError
from irgen.files.sealed import read_parquet, write_parquet

NAME = "captions.parquet"
KEYS = ("id", "path", "label")  # of images; the first of them that the file has names its images
NO_CAPTIONS = pl.DataFrame(schema={"id": pl.String})
SHOWN = 3  # keys that a message names


def read_captions(path: Path) -> pl.DataFrame:
    """Return a CSV or Parquet file's key column, one of KEYS, and its columns with words. Keys are
    distinct: where several rows have one key, its texts are a list.

    Raises SourceError for a file that cannot be read, without a key column or without texts.
    """
    table = _read(path)
    key = next((name for name in KEYS if name in table.columns), None)
    if key is None:
        raise SourceError(
            f"download: captions: {path} names no images: it has the columns "
            f"{', '.join(table.columns)}; give it a column {', '.join(KEYS[:-1])} or {KEYS[-1]}"
        )
    names = [name for name in table.columns if name not in KEYS and _has_words(table[name])]
    if not names:
        raise SourceError(
            f"download: captions: {path} has no texts; give it a column with words beside {key!r}"
        )
    rows = table.select(pl.col(key).cast(pl.String).str.strip_chars().str.normalize("NFC"), *names)
    texts = pl.col(names).drop_nulls().unique(maintain_order=True)
    captions = rows.drop_nulls(key).group_by(key).agg(texts).sort(key)
    return captions.with_columns(
        pl.col(name).list.first() for name in names if captions[name].list.len().max() == 1
    )


def _read(path: Path) -> pl.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path)
        source = str(path)
        return read_texts(decode_list(path.read_bytes(), source), source)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(
            f"download: captions: {path} cannot be read as CSV or Parquet ({reason}); give a file "
            "with a row for each text"
        ) from None


def _has_words(values: pl.Series) -> bool:
    return values.dtype == pl.String and bool(values.str.contains(HAS_WORD).any())


def have_captions_changed(folder: Path, setting: str) -> bool:
    """Tell whether the file that ``download.captions`` names differs from its copy in ``folder``.
    A file that is missing here has not changed: a machine that only takes the results of others
    does not need it."""
    if not (folder / NAME).is_file():
        return True
    is_missing = bool(setting) and not Path(setting).expanduser().is_file()
    return not is_missing and not read_parquet(folder / NAME).equals(_load(setting))


def copy_captions(folder: Path, setting: str) -> None:
    """Copy the file that ``download.captions`` names into ``folder``; an empty table if it names
    none. Raises SourceError as ``read_captions`` does."""
    captions = _load(setting)
    if not (folder / NAME).is_file() or not read_parquet(folder / NAME).equals(captions):
        write_parquet(folder / NAME, captions)


def _load(setting: str) -> pl.DataFrame:
    return read_captions(Path(setting).expanduser()) if setting else NO_CAPTIONS


def join_captions(images: pl.DataFrame, captions: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Return ``images``, whose user's columns are nested, with the captions among these, and
    notes.

    Raises CatalogError if no image has one of the keys, or a column is there already.
    """
    key, *names = captions.columns
    if not names:
        return images, []
    strange = captions.join(images, on=key, how="anti")[key]
    if len(strange) == len(captions):
        raise CatalogError(
            f"download: captions: none of the {len(captions):,} {key}s is an image's, e.g. "
            f"{_name_some(strange)}; the images' are {_name_some(images[key].drop_nulls())}"
        )
    taken = list_fields(images)
    if twice := [name for name in names if name in taken]:
        raise CatalogError(
            f"download: captions: the images have a column {twice[0]!r} already; rename one"
        )
    joined = images.select(key).join(captions, on=key, how="left", maintain_order="left")
    fields = [images[METADATA].struct.field(name) for name in taken]
    columns = pl.DataFrame([*fields, *(joined[name] for name in names)])
    notes = []
    if len(strange):
        notes.append(f"captions of {len(strange):,} {key}s fit no image: {_name_some(strange)}")
    if bare := int(joined.select(pl.all_horizontal(pl.col(names).is_null())).to_series().sum()):
        notes.append(f"{bare:,} of {len(images):,} images have no caption")
    return images.with_columns(columns.to_struct(METADATA)), notes


def _name_some(values: pl.Series) -> str:
    more = " …" if len(values) > SHOWN else ""
    return ", ".join(repr(value) for value in values.head(SHOWN)) + more
