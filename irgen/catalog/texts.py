"""Texts of images: what the text encoder is trained on."""

from collections.abc import Sequence

import polars as pl

from irgen.catalog.columns import METADATA, list_fields
from irgen.errors import CatalogError

SCHEMA = pl.Schema({"id": pl.String(), "texts": pl.List(pl.String())})
HAS_WORD = r"\p{L}{2,}"
ADDRESS = "://"


def choose_columns(
    images: pl.DataFrame, settings: Sequence[str], ignored: Sequence[str], *, labelled: bool
) -> list[str]:
    """Return the columns that hold texts: those that ``texts.columns`` names or, if it is empty,
    the user's text columns with words but the ``ignored`` ones; with them the label, if labels are
    used (``labelled``). Raises CatalogError for a column that is not there or holds no text."""
    fields = [name for name in list_fields(images) if name not in ignored]
    texts = [name for name in fields if _is_text(images[METADATA].struct.field(name))]
    if not settings:
        return [*texts, *(["label"] if labelled and texts else [])]
    for name in settings:
        if name not in (*texts, "label"):
            problem = "holds no text" if name in fields else "is not there"
            raise CatalogError(
                f"params.yaml: texts: columns: {name!r} {problem}; allowed: "
                f"{', '.join([*texts, 'label'])}"
            )
    return list(settings)


def _is_text(values: pl.Series) -> bool:
    """Tell whether a column holds texts with words, or lists of such, and no addresses."""
    plain = values.explode() if values.dtype == pl.List(pl.String) else values
    if plain.dtype != pl.String:
        return False
    words = plain.str.contains(HAS_WORD) & ~plain.str.contains(ADDRESS, literal=True)
    return bool(words.any())


def collect_texts(images: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the texts of images in these columns: columns of SCHEMA, sorted by id. Images without
    a text are left out.

    >>> images = pl.DataFrame({"id": ["a", "b"], "label": ["cat", None]})
    >>> collect_texts(images, ["label"]).rows()
    [('a', ['cat'])]
    """
    if not columns:
        return SCHEMA.to_frame()
    fields = (
        images["label"] if name == "label" else images[METADATA].struct.field(name)
        for name in columns
    )
    lists = pl.DataFrame([_as_lists(f).alias(str(n)) for n, f in enumerate(fields)])
    texts = lists.select(pl.concat_list(pl.all()).list.unique(maintain_order=True)).to_series()
    table = pl.DataFrame({"id": images["id"], "texts": texts}, schema=SCHEMA)
    return table.filter(pl.col("texts").list.len() > 0).sort("id")


def _as_lists(values: pl.Series) -> pl.Series:
    """Return a column of texts, or of lists of them, as lists of its texts that are not blank."""
    if values.dtype == pl.String:
        values = values.reshape((-1, 1)).arr.to_list()
    text = pl.element()
    return values.fill_null([]).list.eval(text.filter(text.str.strip_chars() != ""))
