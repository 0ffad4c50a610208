"""Compare ways to find images by words that no text of the catalogue has in this order.

    python benchmarks/text_queries.py params.yaml texts.csv --seeds 0 1 2

``texts.csv`` has a column ``label`` and text columns. For each seed, half of the sentences of each
label's longest text are held out; all other texts are the captions of all images of the label, and
the models are trained with them. Queries are a few words of the captions in a new order, the
sentences held out, the same without the words of the label's name, and three neighbouring words of
these; and pictures beside the words of the column that is named by ``--vague``. An image is
relevant if it has the label; a picture never finds itself. Prints Markdown tables of means over the
seeds.
"""

import argparse
import re
import sqlite3
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from inserts import PREPARED_BY, run_stages

from irgen.catalog.table import read_table
from irgen.checkpoints.models import compose_queries
from irgen.encoding.encode import open_encoding
from irgen.encoding.query_features import encode_queries
from irgen.evaluation import metrics
from irgen.evaluation.query_set import QuerySet, RankedLists
from irgen.evaluation.sample import draw_sample
from irgen.files.workspace import Workspace
from irgen.index.hits import ImageHits
from irgen.index.index import Index
from irgen.models.text import split_words
from irgen.params import Params, load
from irgen.search.engine import Options, QueryFeatures

DEPTH = 200  # hits of a query
CUTOFFS = (1, 10)
SHOWN = ("precision/1", "precision/10", "hit/10")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
MOST_PICTURES = 500
BRUTE_FORCE = "brute force by embedding"  # for words: a dual encoder
KNOWN = 4  # words of a query that are taught
SHORT = 3  # words of a short query
Values = dict[str, float]


@dataclass(frozen=True)
class Texts:
    """Captions by label, and the sentences that are held out of them."""

    captions: pl.DataFrame  # label, text: several rows a label
    held_out: pl.DataFrame  # label, text


def hold_out(table: pl.DataFrame, seed: int) -> Texts:
    """Hold out half of the sentences of each label's longest text, rounded up or down at random."""
    generator = np.random.default_rng(seed)
    captions, held_out = [], []
    for row in table.iter_rows(named=True):
        label = row.pop("label")
        texts = [text for text in row.values() if text]
        longest = max(texts, key=len)
        sentences = generator.permutation(SENTENCE.split(longest)).tolist()
        count = int(len(sentences) / 2 + generator.integers(2) / 2)
        held_out += [(label, sentence) for sentence in sentences[:count]]
        others = [text for text in texts if text is not longest]
        captions += [(label, text) for text in [*others, *sentences[count:]]]
    schema = ["label", "text"]
    return Texts(*(pl.DataFrame(r, schema, orient="row") for r in (captions, held_out)))


def train(params: Params, folder: Path, texts: Texts) -> tuple[Params, Workspace]:
    """Build an index of images with these captions; return its settings and workspace."""
    seed = folder / f"seed-{params.seed}"
    seed.mkdir(parents=True, exist_ok=True)
    captions = seed / "captions.parquet"
    texts.captions.write_parquet(captions)
    captioned = replace(params, download=replace(params.download, captions=str(captions)))
    workspace = Workspace(data=seed / "data", cache=folder / "cache", reports=seed / "reports")
    run_stages((*PREPARED_BY, "retriever", "index"), captioned, workspace)
    return captioned, workspace


def draw_queries(texts: Texts, seed: int) -> dict[str, pl.DataFrame]:
    """Return queries (label, text) by their title."""
    generator, held_out = np.random.default_rng([seed, 1]), texts.held_out
    taught = texts.captions.group_by("label", maintain_order=True).agg(pl.col("text").str.join(" "))
    known = [
        (label, " ".join(generator.permutation(split_words(text))[:KNOWN]))
        for label, text in taught.iter_rows()
    ]
    nameless, short = [], []
    for label, sentence in held_out.iter_rows():
        names = set(split_words(label))
        words = [word for word in split_words(sentence) if word not in names]
        if len(words) < SHORT:
            continue
        start = generator.integers(len(words) - SHORT + 1)
        nameless.append((label, " ".join(words)))
        short.append((label, " ".join(words[start : start + SHORT])))
    schema = ["label", "text"]
    return {
        f"{KNOWN} taught words in a new order": pl.DataFrame(known, schema, orient="row"),
        "sentences held out": held_out,
        "– without the label's name": pl.DataFrame(nameless, schema, orient="row"),
        f"– {SHORT} words of them": pl.DataFrame(short, schema, orient="row"),
    }


class FullText:
    """Full-text search over the captions and the id of each image of a database."""

    def __init__(self, database: pl.DataFrame, captions: pl.DataFrame):
        texts = captions.group_by("label").agg(pl.col("text").str.join("\n"))
        rows = database.select("id", "label").join(texts, on="label", how="left")
        self.ids = rows["id"]
        self.table = sqlite3.connect(":memory:")
        self.table.execute("CREATE VIRTUAL TABLE texts USING fts5(text)")
        documents = rows.select(pl.concat_str("id", "text", separator="\n", ignore_nulls=True))
        self.table.executemany("INSERT INTO texts VALUES (?)", documents.iter_rows())

    def search(self, queries: list[str], operator: str) -> np.ndarray:
        """Return the ids (Q, DEPTH) that match all words (AND) or any word (OR), by BM25."""
        ids = np.full((len(queries), DEPTH), None, dtype=object)
        command = "SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY rank LIMIT ?"
        for row, query in enumerate(queries):
            expression = f" {operator} ".join(f'"{word}"' for word in split_words(query))
            found = self.table.execute(command, (expression, DEPTH)).fetchall()
            ids[row, : len(found)] = [self.ids[number - 1] for (number,) in found]
        return ids


def search(index: Index, features: QueryFeatures, served: ImageHits) -> dict[str, np.ndarray]:
    """Return the ids (Q, DEPTH) that an index finds, by method; ``served``: by its own."""
    options = pick_options(index)
    by_code = index.search(features, DEPTH, replace(options, rerank=False))
    return {
        BRUTE_FORCE: index.search_brute_force(features, DEPTH).ids,
        "retriever alone": by_code.ids,
        "index, by cosine": sort_by_cosine(index.search(features, DEPTH, options)),
        "index, as it is searched": served.ids,
    }


def pick_options(index: Index) -> Options:
    """Return the options of a search for ten images, which must give DEPTH."""
    return replace(index.options(DEPTH), beams=index.options(1).beams)


def sort_by_cosine(hits: ImageHits) -> np.ndarray:
    """Return the ids (Q, k) of hits, the highest cosine first."""
    return np.take_along_axis(hits.ids, np.argsort(-hits.cosine, axis=1, kind="stable"), 1)


def measure(ids: np.ndarray, labels: pl.Series, database: pl.DataFrame) -> Values:
    """Return the means over queries of these ``labels`` (Q,) of what ranked ``ids`` (Q, k) are."""
    label_of = dict(database.select("id", "label").iter_rows())
    found = np.vectorize(label_of.get, otypes=[object])(ids)
    relevant = found == labels.to_numpy()[:, None]
    counts = dict(database["label"].value_counts().iter_rows())
    positives = np.array([counts.get(label, 0) for label in labels])
    return {k: float(v.mean()) for k, v in metrics.by_query(relevant, positives, CUTOFFS).items()}


def measure_words(
    index: Index, texts: Texts, database: pl.DataFrame, seed: int
) -> dict[str, dict[str, Values]]:
    """Return the metrics of queries in words: by their title, then by method."""
    full_text, results = FullText(database, texts.captions), {}
    for title, queries in draw_queries(texts, seed).items():
        words = queries["text"].to_list()
        ids = {f"full text, {name}": full_text.search(words, name) for name in ("AND", "OR")}
        served = index.search_text(words, DEPTH, pick_options(index))
        ids |= search(index, index.models.encode_texts(words), served)
        results[title] = {name: measure(i, queries["label"], database) for name, i in ids.items()}
    return results


def measure_pictures(
    params: Params, workspace: Workspace, index: Index, words: pl.DataFrame
) -> dict[str, dict[str, Values]]:
    """Return the metrics of pictures alone, of the ``words`` (label, text) of their label alone,
    and of both together: by what the query is, then by method."""
    queries, database = (
        read_table(workspace.existing("catalog", f"{name}.parquet"))
        for name in ("queries", "database")
    )
    queries = queries[draw_sample(queries, MOST_PICTURES)]
    encoding = open_encoding(params.compute, workspace)
    pictures = encode_queries(index.models, queries["sha256"].to_list(), encoding)
    text_of = dict(words.iter_rows())
    texts = [text_of[label] for label in queries["label"]]
    asked, options = index.models.encode_texts(texts), pick_options(index)
    query_set = QuerySet.build(queries, database, max(CUTOFFS))
    row_of = {name: row for row, name in enumerate(database["id"])} | {None: -1}
    find_rows = np.vectorize(row_of.get, otypes=[np.int64])
    results: dict[str, dict[str, Values]] = {}
    composed = compose_queries(pictures, asked)
    for title, features, served in (
        ("picture", pictures, index.search(pictures, DEPTH, options)),
        ("words", asked, index.search_text(texts, DEPTH, options)),
        ("picture and words", composed, index.search(composed, DEPTH, options)),
    ):
        results[title] = {}
        for name, ids in search(index, features, served).items():
            rows = find_rows(ids)
            lists = RankedLists(rows, np.zeros(rows.shape, np.float32))
            lists = query_set.drop_self(lists, DEPTH - 1)
            relevant = query_set.mark_relevant(lists.ids)
            values = metrics.by_query(relevant, query_set.positives, CUTOFFS)
            results[title][name] = {key: float(value.mean()) for key, value in values.items()}
    return results


def render(results: list[dict[str, dict[str, Values]]]) -> str:
    """Return a Markdown table of means over the seeds."""
    lines = [f"| query | method | {' | '.join(SHOWN)} |", "| --- | --- " + "| ---: " * 3 + "|"]
    for title, methods in results[0].items():
        for name in methods:
            means = [np.mean([result[title][name][key] for result in results]) for key in SHOWN]
            lines.append(f"| {title} | {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines)


def main() -> int:
    """Train and measure the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("params", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path(".cache/text-queries"))
    parser.add_argument("--vague", default="category", help="column of words beside a picture")
    options = parser.parse_args()
    table = pl.read_csv(options.texts, infer_schema=False)
    by_words, by_pictures = [], []
    for seed in options.seeds:
        texts = hold_out(table, seed)
        seeded = replace(load(options.params), seed=seed)
        params, workspace = train(seeded, options.folder, texts)
        database = read_table(workspace.existing("catalog", "database.parquet"))
        with Index.open(workspace.stage("index")) as index:
            by_words.append(measure_words(index, texts, database, seed))
            vague = table.select("label", options.vague)
            by_pictures.append(measure_pictures(params, workspace, index, vague))
    print(render(by_words), render(by_pictures), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
