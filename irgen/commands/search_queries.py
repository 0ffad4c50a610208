"""Tell what people search by: image files, ids of the index, words, or a picture with words.

Nothing here imports torch or polars: a running service may answer sooner than they load.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from irgen.catalog.images.codecs import ENDINGS
from irgen.errors import IndexingError

if TYPE_CHECKING:
    from irgen.index.hits import Explanation, ImageHits
    from irgen.index.index import Index
    from irgen.search.engine import Options

Kind = Literal["image", "id", "text", "composed"]


@dataclass(frozen=True)
class Queries:
    """Queries of one command, in order. ``names``: of kind "text" the words, of kind "id" ids of
    the index, else image files. ``text``: of kind "composed", words that go with every image."""

    names: tuple[str, ...]
    kind: Kind
    text: str = ""


def is_text(argument: str) -> bool:
    """Tell whether an argument is words: it names no file that is there (a folder is no image),
    does not end as image files do, and has no slash.

    >>> [is_text(argument) for argument in ("green apple", "phto.jpg", "photos/1", "size 1.5")]
    [True, False, False, True]
    """
    if "/" in argument or os.sep in argument or argument.lower().endswith(ENDINGS):
        return False
    return not os.path.isfile(argument)  # noqa: PTH113 – Path raises for a name that is too long


def sort_queries(arguments: Sequence[str], text: str | None, *, stored: bool) -> Queries:
    """Return the queries of a command. ``text``: words that go with every image; ``stored``: the
    arguments are ids. Raise IndexingError if they are of several kinds."""
    names = tuple(arguments)
    if stored and text is not None:
        raise IndexingError(
            "--with goes with image files, but a search with --ids uses stored embeddings alone"
        )
    if stored:
        return Queries(names, "id")
    words = [name for name in names if is_text(name)]
    if words and text is not None:
        raise IndexingError(f"--with goes with image files, but {words[0]!r} is no image file")
    if words and len(words) < len(names):
        file = next(name for name in names if name not in words)
        raise IndexingError(
            f"{file} is an image file and {words[0]!r} is words: search by one kind at a time, or "
            f"by both together: irgen search {file} --with {words[0]!r}"
        )
    if words:
        return Queries(names, "text")
    return Queries(names, "image") if text is None else Queries(names, "composed", text)


def search_index(index: Index, queries: Queries, k: int, options: Options) -> ImageHits:
    """Return the hits of all queries in an index."""
    match queries.kind:
        case "id":
            return index.search_ids(queries.names, k, options)
        case "text":
            return index.search_text(queries.names, k, options)
        case "composed":
            texts = [queries.text] * len(queries.names)
            return index.search_composed(queries.names, texts, k, options)
    return index.search(queries.names, k, options)


def explain_hits(index: Index, queries: Queries, hits: ImageHits) -> list[list[Explanation]]:
    """Return the explanations of the hits of each query, which has no id."""
    explanations = []
    for name, ids in zip(queries.names, hits.ids, strict=True):
        image = None if queries.kind == "text" else name
        text = name if queries.kind == "text" else queries.text
        query = image if image is not None and not text else index.read_text(text, image)
        explanations.append(index.explain(query, [hit for hit in ids if hit is not None]))
    return explanations
