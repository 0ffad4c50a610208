"""``irgen search``: the images most like some others, and how sure that is."""

from argparse import Namespace

from irgen.commands import answers, places
from irgen.commands.answers import Answer
from irgen.compute import keep_freed_memory
from irgen.errors import IndexingError
from irgen.index.filters import parsed
from irgen.index.found import Found
from irgen.index.index import Index

FOR_IMAGES = ("fresh_beams", "no_rerank", "explain")  # of no use with --ids


def run(options: Namespace) -> None:
    """Searches and prints. Raises IrgenError for options that make no sense, an image that cannot
    be read, and an index that is none."""
    _check(options)
    keep_freed_memory()
    with places.to_read(options) as index:
        found = _found(index, options)
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


def _found(index: Index, options: Namespace) -> Found:
    allow = None if options.allow is None else parsed(options.allow)
    if options.ids:
        return index.search_ids(
            options.ids,
            options.k,
            beams=options.beams,
            candidates=options.candidates,
            distinct=options.distinct,
            allow=allow,
            min_score=options.min_score,
            min_probability=options.min_probability,
        )
    return index.search(
        options.images,
        options.k,
        beams=options.beams,
        candidates=options.candidates,
        fresh_beams=options.fresh_beams,
        rerank=not options.no_rerank,
        distinct=options.distinct,
        allow=allow,
        min_score=options.min_score,
        min_probability=options.min_probability,
    )
