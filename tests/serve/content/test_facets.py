"""Which columns people can filter by, and how."""

from pathlib import Path

import polars as pl

from irgen.index.index import Index
from irgen.serve.content.facets import Facet, list_facets

from ...index.conftest import create

TABLE = pl.DataFrame(
    {
        "id": ["a", "b", "c"],
        "colour": ["red", "blue", "red"],
        "story": ["short", "long " * 20, None],
        "sold": [True, False, None],
        "price": [1.5, None, 2.0],
        "empty": pl.Series([None, None, None], dtype=pl.String),
        "tags": [["x"], [], None],
    }
)


def test_few_short_values_are_a_choice_and_long_ones_a_text(tmp_path: Path) -> None:
    with Index.open(create(tmp_path / "index", TABLE["id"], items=TABLE)) as index:
        assert list_facets(index.view) == [
            Facet("colour", "choice", ("blue", "red")),
            Facet("sold", "choice", ("false", "true")),
            Facet("story", "text"),
            Facet("price", "number"),
        ]
