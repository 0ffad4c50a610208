"""What settings are worth, by cross-validation over the images that teach: no query is looked at.

    python benchmarks/crossvalidation.py experiments/<set>.yaml
    python benchmarks/crossvalidation.py experiments/<set>.yaml --set tokenizer.prefix_weight=1

Of the catalogue's training and validation images each is asked about once, of models that were
taught by the other folds, which are the database, too. Ten folds of a small set ask more than its
validation images alone. All images of the database are ordered by each score, so that beams and
candidates play no part. ``--no-retriever`` leaves out what the retriever says, which takes most of
the time. What the frozen encoder makes of the images is cached.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from irgen.catalog.table import read_table
from irgen.compute import prepare
from irgen.encoding import open_encoding, views
from irgen.evaluation import metrics, runs
from irgen.evaluation.measuring import DEEPEST
from irgen.files import read_json, write_bytes, write_json
from irgen.models.pairs import RULES
from irgen.models.reader import Query
from irgen.models.retriever import Retriever, Shape
from irgen.models.tokenizer import Tokenizer, adapt_all, class_numbers
from irgen.params import Params, check, load
from irgen.search.kinds import Kinds
from irgen.search.scan import scan
from irgen.stages.retriever import neighbours
from irgen.study.plan import changed
from irgen.study.significance import p_value
from irgen.training import retriever as retrieving
from irgen.training import tokenizer as tokenizing
from irgen.training.batches import Views, in_order
from irgen.training.checkpoint import Resume
from irgen.typed import parse
from irgen.weights import create_encoder
from irgen.workspace import Workspace

WEIGHTS = (0.2, 0.4, 0.8)
CUTOFFS = (1, 10, 20)
SHOWN = ("precision/1", "precision/10", "precision/20", "map/R")
SCAN = "cosine: the exact scan"
Values = dict[str, np.ndarray]  # a metric of every query


@dataclass(frozen=True)
class Taught:
    """The N images that teach, as a frozen encoder sees them, their class numbers (N,), and the
    names of the classes."""

    images: Views
    labels: Tensor
    classes: list[str]

    def seen(self, rows: Tensor) -> Views:
        """Those at ``rows`` (n,)."""
        tokens, summaries = self.images.tokens, self.images.summaries
        return Views(summaries[rows.numpy()], None if tokens is None else tokens[rows.numpy()])


def read_taught(params: Params, folder: Path) -> Taught:
    """Training and validation images of the source, each content once."""
    workspace = Workspace(data=folder / "data", cache=folder / "cache", reports=folder / "reports")
    for name in ("download", "catalog"):
        import_module(f"irgen.stages.{name}").run(params, workspace, lambda metrics, step: None)
    paths = [workspace.existing("catalog", f"{name}.parquet") for name in ("train", "validation")]
    table = pl.concat([read_table(path) for path in paths]).unique("sha256", maintain_order=True)
    classes = table["label"].unique().sort().to_list()
    encoding = open_encoding(params.compute, workspace)
    encoder = create_encoder(params.encoder, params.seed)
    images = views(encoder, table["sha256"].to_list(), params.augment, params.seed, encoding)
    return Taught(images, class_numbers(table["label"], classes), classes)


def folds_of(count: int, folds: int, seed: int) -> Tensor:
    """(N,) int64: the fold that each image is in, as many in each or one more."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)) % folds


def teach(
    params: Params, taught: Taught, rows: Tensor, folder: Path
) -> tuple[Tokenizer, Tensor, Views]:
    """A tokenizer taught by the images at ``rows`` (n,); the unit embeddings (N, D) of all images,
    and what a retriever that uses it sees of them."""
    settings, machine = params.tokenizer, prepare(params.compute)
    images, nothing = taught.images.without_tokens().summaries, torch.empty(0).long()
    torch.manual_seed(params.seed)
    model = Tokenizer(settings, images.shape[2], len(taught.classes), None)
    data = (
        tokenizing.Labelled(taught.seen(rows).without_tokens(), taught.labels[rows]),
        tokenizing.Labelled(taught.seen(nothing).without_tokens(), nothing),
    )
    resume = Resume(folder, "tokenizer")
    tokenizing.train(model, data, settings, (machine, params.seed), resume, lambda row, step: None)
    resume.clear()
    flat = adapt_all(model, images.reshape(-1, images.shape[2]), machine.device)
    adapted = flat.view(*images.shape[:2], -1)  # (N, V, D)
    seen = Views(adapted.numpy(), taught.images.tokens)
    if params.retriever.encoder == "pretrained":
        seen = taught.images
    return model.cpu(), adapted[:, 0].contiguous(), seen


@torch.inference_mode()
def openings(model: Query, images: Views, params: Params) -> Tensor:
    """(Q, L): the log-probability with which a retriever writes each first entry."""
    machine, found = prepare(params.compute), []
    for rows, new in in_order(len(images), 64):
        inputs = [part.to(machine.device) for part in images.plain(rows)]
        blank = torch.zeros(len(rows), params.tokenizer.levels, dtype=torch.int64)
        with machine.precision():
            logits = model.eval()(inputs, blank.to(machine.device))[:, 0]
        found.append(logits[:new].float().log_softmax(-1).cpu())
    return torch.cat(found)


def write(
    params: Params, taught: Taught, split: tuple[Tensor, Tensor], made: tuple, folder: Path
) -> Tensor:
    """What a retriever taught by the first images of ``split`` writes for the second ones: see
    ``openings``. ``made`` = (codes (n, M) of the first ones, what it sees of all images). The last
    epoch's average is taken, for nothing validates."""
    settings, machine = params.retriever, prepare(params.compute)
    (rows, asked), (codes, seen) = split, made
    features = torch.from_numpy(np.array(taught.images.summaries[rows.numpy(), 0])).float()
    found, _ = RULES[params.pairs.rule](
        features, taught.labels[rows], params.pairs.neighbours, params.seed
    )
    anchors, places = torch.nonzero(found >= 0, as_tuple=True)
    pairs = pl.DataFrame({"anchor": anchors.numpy(), "positive": found[anchors, places].numpy()})
    own, tokens = Taught(seen, taught.labels, taught.classes), seen.tokens
    assert tokens is not None, "a retriever reads tokens"
    shape = Shape(
        summary_width=seen.summaries.shape[2],
        token_width=tokens.shape[3],
        token_count=tokens.shape[2],
        levels=codes.shape[1],
        codebook=params.tokenizer.codebook,
    )
    torch.manual_seed(params.seed)
    model, nothing = Query(None, Retriever(settings, shape)), torch.empty(0).long()
    data = (
        retrieving.Pairs(own.seen(rows), codes, *neighbours(pairs, len(rows))),
        retrieving.Held(own.seen(nothing), nothing, taught.labels[rows]),
    )
    resume = Resume(folder, "retriever")
    retrieving.train(model, data, settings, (machine, params.seed), resume, lambda row, step: None)
    resume.clear()
    return openings(model, own.seen(asked), params)


def ask(params: Params, taught: Taught, fold: Tensor, folder: Path, written: bool) -> dict:
    """Every metric of every query of the fold (N,) bool, by the score that orders the database."""
    rows, asked = torch.nonzero(~fold).flatten(), torch.nonzero(fold).flatten()
    model, embeddings, seen = teach(params, taught, rows, folder)
    kinds, codes = Kinds.of(model), model.tokenize(embeddings[rows])
    first, queries, names = codes[:, 0], embeddings[asked], taught.labels.numpy().astype(str)
    label = kinds.alike(queries)
    scores: dict[str, Tensor | None] = {SCAN: None}
    scores |= {f"+ {weight} × label": weight * label for weight in WEIGHTS}
    if written:
        opening = write(params, taught, (rows, asked), (codes, seen), folder)
        own = kinds.written(opening)
        both = ((label.exp() + own.exp()) / 2).log()
        scores |= {f"+ {weight} × label as written": weight * own for weight in WEIGHTS}
        scores |= {f"+ {weight} × mean of both": weight * both for weight in WEIGHTS}
        scores |= {"label as written, then cosine": 1000 * own}
    wanted = runs.positives(names[asked], asked.tolist(), names[rows], rows.tolist())
    found = {}
    for name, score in scores.items():

        def added(start: int, end: int, score: Any = score) -> Tensor:
            return score[:, first[start:end]]

        top = scan(queries, embeddings[rows], DEEPEST, None if score is None else added).ids
        hits = runs.relevance(top.numpy(), names[asked], names[rows])
        found[name] = metrics.by_query(hits, wanted, CUTOFFS)
    return found


def page(title: str, found: dict[str, Values], told: str) -> str:
    """Markdown: a row a score, with p beside the scan's."""
    lines = [
        ["", "P@1", "P@10", "P@20", "mAP@R", "p at P@10", "p at mAP@R"],
        ["---", *["---:"] * 6],
    ]
    for name, values in found.items():
        p = [p_value(values[each], found[SCAN][each]) for each in ("precision/10", "map/R")]
        beside = ["", ""] if name == SCAN else [f"{each:.4f}" for each in p]
        lines.append([name, *(f"{values[each].mean():.4f}" for each in SHOWN), *beside])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {title}\n\n{body}\n\n{told}\n"


def main() -> int:
    """Teaches and asks, fold after fold, and adds what came out to the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("params", type=Path)
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="changes")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--no-retriever", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(".cache/crossvalidation"))
    options = parser.parse_args()
    params = params_of(options.params, options.changes)
    taught = read_taught(params, options.folder / options.params.stem)
    fold, started = folds_of(len(taught.labels), options.folds, params.seed), time.perf_counter()
    found: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for number in tqdm(range(options.folds), "folds", disable=None):
        seeded = replace(params, seed=params.seed + number)
        with tempfile.TemporaryDirectory() as place:
            one = ask(seeded, taught, fold == number, Path(place), not options.no_retriever)
        for name, values in one.items():
            for metric, each in values.items():
                found[name][metric].append(each)
    joined = {
        name: {metric: np.concatenate(parts) for metric, parts in values.items()}
        for name, values in found.items()
    }
    here = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(here, capture_output=True, text=True).stdout.strip() or "unknown"
    title = " ".join([options.params.stem, *options.changes])
    told = (
        f"{len(taught.labels):,} images, {options.folds} folds, {prepare(params.compute).decoder}, "
        f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), commit {commit}, "
        f"{time.perf_counter() - started:,.0f} s."
    )
    results = Path(__file__).parent / "results"
    path = results / "crossvalidation.json"
    every = read_json(path) if path.exists() else {}
    means = {n: {m: float(v.mean()) for m, v in values.items()} for n, values in joined.items()}
    every[title] = {"means": means, "page": page(title, joined, told)}
    write_json(path, every)
    pages = [one["page"] for _, one in sorted(every.items())]
    write_bytes(results / "crossvalidation.md", "\n".join(pages).encode())
    print(every[title]["page"])
    return 0


def params_of(path: Path, changes: list[str]) -> Params:
    """The parameters of a file with other values at some keys. Raises ParamsError for a key that
    there is not, SystemExit for settings that are not meant here."""
    load(path)
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for change in changes:
        key, _, value = change.partition("=")
        tree = changed(tree, key, yaml.safe_load(value), where=str(path))
    params: Params = parse(Params, tree, where=str(path))
    check(params)
    settings = params.tokenizer
    if settings.tune_encoder or params.retriever.tune_encoder or settings.labels != "given":
        raise SystemExit("an encoder that is trained, and labels: clusters, are not meant here")
    return params


if __name__ == "__main__":
    sys.exit(main())
