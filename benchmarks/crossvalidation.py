"""Compare settings by cross-validation over the training images; the query images are not read.

    python benchmarks/crossvalidation.py experiments/<set>.yaml
    python benchmarks/crossvalidation.py experiments/<set>.yaml --set tokenizer.prefix_weight=1
    python benchmarks/crossvalidation.py experiments/<set>.yaml --unseen-classes
    python benchmarks/crossvalidation.py experiments/<set>.yaml --baseline irt_r

Each training or validation image of the catalogue is a query of one fold. The models are trained
on the other folds, which are also the database. So ten folds of a small set have more queries than
the validation images alone. Each score ranks the whole database; beams and candidates play no part.
``--no-retriever`` leaves out the scores of the retriever, whose training takes most of the time.
Features of a frozen encoder are cached.

``--baseline cgd`` or ``irt_r`` trains this method instead, and searches its vectors by brute force.
``--unseen-classes`` holds out classes rather than images: half of a held-out class's images join
the database, the other half are queries, and no model is trained on any of them.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
import yaml
from fold_training import (
    Fold,
    ImageSet,
    encode_with_baseline,
    predict_first_codes,
    read_images,
    select,
    split_classes,
    split_images,
    train_retriever,
    train_tokenizer,
)
from torch import Tensor
from tqdm import tqdm

from irgen.commands.format import format_count
from irgen.evaluation import metrics
from irgen.evaluation.latency import name_processor
from irgen.evaluation.query_set import MAX_DEPTH, count_positives, mark_relevant
from irgen.files.atomic import write_bytes
from irgen.files.records import read_json, write_json
from irgen.files.workspace import git
from irgen.params import Params, check, load
from irgen.params.strict import parse
from irgen.search.brute_force import brute_force_search
from irgen.search.label_scorer import LabelScorer
from irgen.study.plan import set_value
from irgen.study.significance import corrected, p_value, resample

WEIGHTS = (0.1, 0.2, 0.4, 0.8)
CUTOFFS = (1, 10, 20)
SHOWN = ("precision/1", "precision/10", "precision/20", "map/R")
TESTED = ("precision/10", "map/R")
COSINE = "cosine: brute-force search"
Values = dict[str, np.ndarray]  # each metric of all queries, (Q,)


def measure_fold(
    params: Params, images: ImageSet, fold: Fold, folder: Path, with_retriever: bool
) -> dict[str, Values]:
    """Return the metrics of the fold's queries, by the score that ranks the database."""
    tokenized = train_tokenizer(params, images, fold.train, folder)
    label_scorer = LabelScorer.build(tokenized.tokenizer)
    queries, database = (tokenized.embeddings[rows] for rows in (fold.queries, fold.database))
    first_codes = tokenized.tokenizer.tokenize(database)[:, 0]
    label = share_label(tokenized.tokenizer.classify(queries).softmax(-1), label_scorer)
    log_probs = {"label": label}
    if with_retriever:
        retriever = train_retriever(params, images, fold.train, tokenized, folder)
        inputs = select(tokenized.inputs, fold.queries)
        first_code = predict_first_codes(retriever, inputs, images.encoding.machine)
        code_labels = label_scorer.code_labels[: first_code.shape[1]]
        predicted = share_label(first_code.exp() @ code_labels, label_scorer)
        mean = ((label.exp() + predicted.exp()) / 2).log()
        log_probs |= {"first code": first_code, "label as predicted": predicted}
        log_probs |= {"mean of both labels": mean}
    scores: dict[str, Tensor | None] = {COSINE: None}
    scores |= {f"+ {w} × {name}": w * values for name, values in log_probs.items() for w in WEIGHTS}
    if with_retriever:
        scores["label as predicted, then cosine"] = 1000 * predicted
    return {
        name: measure_lists(images, fold, rank(queries, database, first_codes, score))
        for name, score in scores.items()
    }


@torch.inference_mode()
def share_label(query_labels: Tensor, label_scorer: LabelScorer) -> Tensor:
    """Return the log-probabilities (Q, L) that queries and first codes have one label, of the label
    probabilities (Q, C) of queries."""
    shared = query_labels @ label_scorer.code_labels.T
    return shared.clamp_min(1e-37).log()


def rank(queries: Tensor, database: Tensor, first_codes: Tensor, score: Tensor | None) -> Tensor:
    """Return the best rows of the database (Q, k) by cosine, plus, if ``score`` (Q, L) is given,
    the score of each image's first code."""
    if score is None:
        return brute_force_search(queries, database, MAX_DEPTH).ids

    def score_rows(start: int, end: int) -> Tensor:
        return score[:, first_codes[start:end]]

    return brute_force_search(queries, database, MAX_DEPTH, score_rows).ids


def measure_baseline(
    params: Params, images: ImageSet, fold: Fold, folder: Path, name: str
) -> dict[str, Values]:
    """Return the metrics of the fold's queries for the vectors of a baseline."""
    vectors = encode_with_baseline(params, images, fold.train, folder, name)
    rows = brute_force_search(vectors[fold.queries], vectors[fold.database], MAX_DEPTH).ids
    return {name: measure_lists(images, fold, rows)}


def measure_lists(images: ImageSet, fold: Fold, rows: Tensor) -> Values:
    """Return the metrics of the fold's queries for ranked ``rows`` (Q, k) of its database."""
    database, queries = fold.database.tolist(), fold.queries.tolist()
    hashes = pl.Series(images.sha256s)
    labels = pl.Series(images.classes)[images.labels.tolist()]
    positives = count_positives(
        labels[queries], hashes[queries], labels[database], hashes[database]
    )
    hits = mark_relevant(rows.numpy(), labels[queries], labels[database])
    return metrics.by_query(hits, positives, CUTOFFS)


def render(title: str, results: dict[str, Values], description: str) -> str:
    """Return a Markdown section: a row for each score, with p-values against brute-force search
    after Holm's correction."""
    lines = [
        ["", "P@1", "P@10", "P@20", "mAP@R", "p at P@10", "p at mAP@R"],
        ["---", *["---:"] * 6],
    ]
    compared = results.keys() - {COSINE} if COSINE in results else set()
    p_values = {
        metric: corrected(
            {
                name: p_value(resample((results[name][metric] - results[COSINE][metric])[None]))
                for name in compared
            }
        )
        for metric in TESTED
    }
    for name, values in results.items():
        means = [f"{values[metric].mean():.4f}" for metric in SHOWN]
        tests = [f"{p_values[m][name]:.4f}" if name in compared else "" for m in TESTED]
        lines.append([name, *means, *tests])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {title}\n\n{body}\n\n{description}\n"


def read_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("params", type=Path)
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="changes")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--no-retriever", action="store_true", help="train no retriever")
    parser.add_argument("--baseline", choices=["cgd", "irt_r"], help="train this method instead")
    parser.add_argument("--unseen-classes", action="store_true", help="hold out whole classes")
    parser.add_argument("--folder", type=Path, default=Path(".cache/crossvalidation"))
    return parser.parse_args()


def measure_folds(params: Params, images: ImageSet, options: argparse.Namespace) -> dict:
    """Train and measure fold after fold; return the metrics of all queries by name."""
    split = split_classes if options.unseen_classes else split_images
    folds = split(images.labels, options.folds, params.seed)
    parts: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for number, fold in enumerate(tqdm(folds, "folds", options.folds, disable=None)):
        seeded = replace(params, seed=params.seed + number)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if options.baseline:
                results = measure_baseline(seeded, images, fold, folder, options.baseline)
            else:
                results = measure_fold(seeded, images, fold, folder, not options.no_retriever)
        for name, values in results.items():
            for metric, per_query in values.items():
                parts[name][metric].append(per_query)
    return {
        name: {metric: np.concatenate(arrays) for metric, arrays in values.items()}
        for name, values in parts.items()
    }


def main() -> int:
    """Measure the settings, and add the figures to the results."""
    options = read_arguments()
    params = read_params(options.params, options.changes)
    images = read_images(params, options.folder / options.params.stem)
    started = time.perf_counter()
    measured = measure_folds(params, images, options)
    commit = git(Path(__file__).parent, "rev-parse", "--short", "HEAD") or "unknown"
    details = [options.baseline] if options.baseline else []
    details += ["unseen classes"] if options.unseen_classes else []
    title = ", ".join([" ".join([options.params.stem, *options.changes]), *details])
    machine, cores = images.encoding.machine, len(os.sched_getaffinity(0))
    queries = len(next(iter(measured.values()))["map/R"])
    description = (
        f"{queries:,} images, {options.folds} folds, {machine.decoder}, "
        f"{format_count(cores, 'core')} ({name_processor(machine.device)}), commit {commit}, "
        f"{time.perf_counter() - started:,.0f} s."
    )
    results = Path(__file__).parent / "results"
    path = results / "crossvalidation.json"
    sections = read_json(path) if path.exists() else {}
    means = {n: {m: float(v.mean()) for m, v in values.items()} for n, values in measured.items()}
    sections[title] = {"means": means, "page": render(title, measured, description)}
    write_json(path, sections)
    pages = [section["page"] for _, section in sorted(sections.items())]
    write_bytes(results / "crossvalidation.md", "\n".join(pages).encode())
    print(sections[title]["page"])
    return 0


def read_params(path: Path, changes: list[str]) -> Params:
    """Return the settings of a file after ``changes``, each ``key=value``. Raise ParamsError for an
    unknown key, SystemExit for settings without given labels."""
    load(path)
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for change in changes:
        key, _, value = change.partition("=")
        tree = set_value(tree, key, yaml.safe_load(value), where=str(path))
    params: Params = parse(Params, tree, where=str(path))
    check(params)
    labels = params.tokenizer.labels
    if labels != "given":
        raise SystemExit(
            f"{path}: cross-validation takes tokenizer.labels = given, not {labels}: "
            "it measures by the labels that the images are given."
        )
    return params


if __name__ == "__main__":
    sys.exit(main())
