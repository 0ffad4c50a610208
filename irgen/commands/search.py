"""``irgen search``: the images most like some others, and how sure that is."""

from argparse import Namespace
from dataclasses import replace

from irgen.commands import answers, places
from irgen.commands.answers import Answer
from irgen.compute import keep_freed_memory
from irgen.errors import IndexingError
from irgen.index.filters import parse
from irgen.index.hits import ImageHits
from irgen.index.index import Index

FOR_IMAGES = ("fresh_beams", "no_rerank", "explain")  # of no use with --ids
SEARCH = ("beams", "candidates", "fresh_beams", "distinct", "min_score", "min_probability")


def run(options: Namespace) -> None:
    """Searches and prints. Raises IrgenError for options that make no sense, an image that cannot
    be read, and an index that is none."""
    _check(options)
    keep_freed_memory()
    with places.to_read(options) as index:
        found = _search(index, options)
        queries, stored = options.ids or options.images, bool(options.ids)
        answer = Answer.of(queries, found, index.view, stored=stored)
        if options.explain:
            answer = answer.explained(
                [
                    index.explain(image, [name for name in ids if name is not None])
                    for image, ids in zip(options.images, found.ids, strict=True)
                ]
            )
    print(answers.FORMS[options.form](answer), end="")


def _check(options: Namespace) -> None:
    if bool(options.images) == bool(options.ids):
        raise IndexingError("name images to search with, or with --ids images of the index")
    for name in FOR_IMAGES:
        if options.ids and getattr(options, name) not in (None, False):
            raise IndexingError(
                f"--{name.replace('_', '-')} is about what the retriever writes; it does not write "
                "in a search with --ids, which goes by stored embeddings"
            )


def _search(index: Index, options: Namespace) -> ImageHits:
    least = options.k + bool(options.ids)  # an image of the index finds itself
    defaults = index.options(least)
    given = {name: getattr(options, name) for name in SEARCH if getattr(options, name) is not None}
    changed = replace(defaults, rerank=not options.no_rerank, **given)
    if options.allow is not None:
        changed = replace(changed, allow=parse(options.allow))
    if options.ids:
        return index.search_ids(options.ids, options.k, changed)
    return index.search(options.images, options.k, changed)
