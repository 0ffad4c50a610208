"""``irgen search``: find the images most like some others, or those that fit some words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irgen.commands import project_index
from irgen.commands.options import EXPRESSION, note, read_index_option, root_option
from irgen.errors import IndexingError, ServiceError
from irgen.releases import own_index

if TYPE_CHECKING:
    from irgen.commands.search_output import Answer


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="QUERY...")
@click.option(
    "--ids",
    "stored",
    is_flag=True,
    help="Each QUERY is the id of an image in the index: search by its stored embedding. It is not "
    "among its own hits.",
)
@click.option(
    "--with",
    "text",
    metavar="TEXT",
    help='Search by each image together with these words, such as "in red". They say what to look '
    "for; --words filters.",
)
@click.option("-k", "--k", type=int, default=10, help="Images to find per query. Default: 10.")
@click.option(
    "--beams",
    type=int,
    help="Code sequences kept by beam search: more find more and take longer. Default: see irgen "
    "info; at least k.",
)
@click.option("--candidates", type=int, help="Maximum number of images to collect and re-rank.")
@click.option(
    "--fresh-beams",
    type=int,
    help="Beams that search images added after training by embedding; 0: only images that the "
    "retriever predicts, and those under the query's own code.",
)
@click.option(
    "--no-rerank", is_flag=True, help="Keep the retriever's order: sort by the code alone."
)
@click.option(
    "--hedge",
    type=float,
    metavar="WORTH",
    help="How much one good hit among the first ten is worth, in tens of good hits. The larger it "
    "is, the more of the other labels that the query may have are shown; 0: none. Default: see "
    "irgen info.",
)
@click.option(
    "--distinct",
    type=float,
    metavar="COSINE",
    help="Hide an image whose cosine with a better hit is at least this, such as 0.98.",
)
@click.option("--allow", metavar="EXPR", help=f"Find only images that match: {EXPRESSION}.")
@click.option(
    "--words",
    metavar="TEXT",
    help="Filter: find only images that have all of these words in their id or text columns, such "
    'as "red dress". Capitals and accents do not count; the last word may be the beginning of one.',
)
@click.option("--min-score", type=float, metavar="SCORE", help="Drop hits with a lower score.")
@click.option(
    "--min-probability",
    type=float,
    metavar="P",
    help="Drop hits less likely than this, 0 to 1, to have the query's label. Not for words.",
)
@click.option(
    "--explain", is_flag=True, help="Show each hit's code and its probability, level by level."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, with metadata.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a CSV table, with metadata.")
@click.option(
    "--html",
    "sheet_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with pictures of the queries and their hits, too.",
)
@click.option(
    "--open",
    "show",
    is_flag=True,
    help="Open that page in the browser; without --html, a temporary file.",
)
@click.option(
    "--server",
    metavar="URL",
    help="Ask this service (irgen serve). One that runs on this machine over the same index is "
    "asked anyway, because it answers at once; --server none opens the index.",
)
@read_index_option
@root_option
def search(
    arguments: tuple[str, ...],
    stored: bool,
    text: str | None,
    k: int,
    beams: int | None,
    candidates: int | None,
    fresh_beams: int | None,
    no_rerank: bool,
    hedge: float | None,
    distinct: float | None,
    allow: str | None,
    words: str | None,
    min_score: float | None,
    min_probability: float | None,
    explain: bool,
    as_json: bool,
    as_csv: bool,
    sheet_path: Path | None,
    show: bool,
    server: str | None,
    folder: Path | None,
    root: Path,
) -> None:
    """Find the images of the index most like each QUERY, best first: an image file, or words such
    as "green apple". What is no file, does not end as image files do and has no slash is words.

    Columns: score sorts the hits. It is the probability that a hit has the query's label, fitted to
    validation images; the cosine of the two embeddings in an index without labels and with --ids;
    with --no-rerank, the log-probability of the hit's code. Less likely labels may have a place
    among the first ten, so that there is a good hit even if the likeliest label is wrong (see
    --hedge). "same label" is the probability, too. "found by" tells how a hit
    was found: by retriever, if the retriever predicted its code; by embedding, if its code is near
    the query's embedding. Images added after training are mostly found by embedding, since the
    retriever was not trained on them.

    For words, score goes from 0 to 1: how well the image's texts match, and how near its picture
    is; nothing says how probable a hit is. Where the index has no text encoder, or images have
    words that it has not learned, all hits are found by texts: score is BM25.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if stored and (fresh_beams is not None or no_rerank or hedge is not None or explain):
        raise IndexingError(
            "--fresh-beams, --no-rerank, --hedge and --explain need the retriever, but a search "
            "with --ids uses stored embeddings alone"
        )
    from irgen.commands import search_output, search_queries
    from irgen.serve import running

    queries = search_queries.sort_queries(arguments, text, stored=stored)
    form = "json" if as_json else "csv" if as_csv else "text"
    needs_index = explain or show or sheet_path is not None
    if server not in (None, "none") and (needs_index or folder):
        raise click.UsageError("--server excludes --explain, --html, --open and --index")
    url = None if server == "none" else server
    if server is None and not needs_index:
        url = running.find(root, folder or own_index.default_folder(root))
    values = {
        "beams": beams,
        "candidates": candidates,
        "fresh_beams": fresh_beams,
        "hedge": hedge,
        "distinct": distinct,
        "words": words,
        "min_score": min_score,
        "min_probability": min_probability,
    }
    chosen: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    if url:
        from irgen.commands import search_service

        fields = chosen | {"filter": allow, "rerank": False if no_rerank else None}
        try:
            tries = search_service.TRIES if server else 1  # else the index answers sooner
            answer = search_service.ask(url, queries, k, fields, tries=tries)
        except ServiceError:
            if server is not None:
                raise  # else the index itself answers, or says what is wrong
        else:
            show_answer(answer, form)
            return
    from irgen.compute.machine import keep_freed_memory
    from irgen.search.engine import MOST_HITS

    keep_freed_memory()
    with project_index.open_to_read(root, folder) as index:
        k = min(k, max(index.view.snapshot.rows, 1))  # there are no more
        least = min(k + stored, MOST_HITS)  # an image of the index finds itself
        options = replace(
            index.options(least), allow=allow, rerank=not no_rerank, trust_copies=True, **chosen
        )
        hits = search_queries.search_index(index, queries, k, options)
        answer = search_output.Answer.of(queries, hits, index)
        if explain:
            answer = answer.explained(search_queries.explain_hits(index, queries, hits))
        sheet = None
        if show or sheet_path is not None:
            from irgen.commands import search_sheet  # its imports take a second

            sheet = search_sheet.make_sheet(answer, index, root)
    show_answer(answer, form)
    if sheet is not None:
        search_sheet.write_sheet(sheet, sheet_path, show=show)


def show_answer(answer: Answer, form: str) -> None:
    """Print an answer, and beside it how queries in words were read."""
    from irgen.commands import search_output

    for line in search_output.describe_readings(answer):
        note(line)
    print(search_output.FORMATS[form](answer), end="")
