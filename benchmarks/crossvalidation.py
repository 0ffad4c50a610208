"""Compare settings by cross-validation over the training images, without looking at any query.

    python benchmarks/crossvalidation.py experiments/<set>.yaml
    python benchmarks/crossvalidation.py experiments/<set>.yaml --set tokenizer.prefix_weight=1
    python benchmarks/crossvalidation.py experiments/<set>.yaml --untaught
    python benchmarks/crossvalidation.py experiments/<set>.yaml --baseline irt_r

Of the catalogue's training and validation images each is asked about once, of models that were
taught by the other folds, which are the database, too. Ten folds of a small set ask more than its
validation images alone. All images of the database are ordered by each score, so that beams and
candidates play no part. ``--no-retriever`` leaves out what the retriever says, which takes most of
the time. What a frozen encoder makes of the images is cached.

With ``--baseline cgd`` or ``irt_r`` that method is trained instead, and searched by brute force.
With ``--untaught`` the folds are of labels: half of a fold's images join the database after all,
the other half are asked about, and none teaches.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
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
from irgen.checkpoints.resume import Resume
from irgen.checkpoints.retriever import initial_query_encoder
from irgen.checkpoints.weights import create_encoder
from irgen.commands.format import format_count
from irgen.compute.batches import full_batches
from irgen.compute.machine import Machine
from irgen.encoding.batches import EncodedViews, LabelledImages, Pixels
from irgen.encoding.encode import (
    Encoding,
    decode_pixels,
    encode_summaries,
    open_encoding,
)
from irgen.encoding.views import encode_views
from irgen.evaluation import metrics
from irgen.evaluation.latency import name_processor
from irgen.evaluation.query_set import MAX_DEPTH, count_positives, mark_relevant
from irgen.files.atomic import write_bytes
from irgen.files.records import read_json, write_json
from irgen.files.workspace import Workspace, git
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import QueryEncoder, Retriever
from irgen.models.tokenizer import Tokenizer, class_numbers, embed_summaries
from irgen.params import Params, check, load
from irgen.params.strict import parse
from irgen.search.brute_force import brute_force_search
from irgen.search.label_scorer import LabelScorer
from irgen.study.plan import set_value
from irgen.study.significance import corrected, p_value
from irgen.training import retriever as retrieving
from irgen.training import tokenizer as tokenizing
from irgen.training.baselines import list_recipes, train_baseline
from irgen.training.pairs import RULES
from irgen.training.run import TrainingRun

WEIGHTS = (0.1, 0.2, 0.4, 0.8)
NOTHING = torch.empty(0).long()  # no row
CUTOFFS = (1, 10, 20)
SHOWN = ("precision/1", "precision/10", "precision/20", "map/R")
TESTED = ("precision/10", "map/R")
SCAN = "cosine: brute-force search"
Values = dict[str, np.ndarray]  # a metric of every query


@dataclass(frozen=True)
class Taught:
    """The N training images: content hashes, class numbers (N,), names of the classes, how they
    are encoded, and where an encoder is trained the decoded ``pixels`` (N, C, H, H)."""

    sha256s: list[str]
    labels: Tensor
    classes: list[str]
    encoding: Encoding
    pixels: np.ndarray | None


def read_taught(params: Params, folder: Path) -> Taught:
    """Training and validation images of the source, each content once."""
    workspace = Workspace(data=folder / "data", cache=folder / "cache", reports=folder / "reports")
    for name in ("download", "catalog"):
        import_module(f"irgen.stages.{name}").run(params, workspace, lambda metrics, step: None)
    paths = [workspace.existing("catalog", f"{name}.parquet") for name in ("train", "validation")]
    table = pl.concat([read_table(path) for path in paths]).unique("sha256", maintain_order=True)
    classes, sha256s = table["label"].unique().sort().to_list(), table["sha256"].to_list()
    encoding, encoder = open_encoding(params.compute, workspace), create_encoder(params.encoder, 0)
    trained = params.tokenizer.tune_encoder or params.retriever.tune_encoder
    decoded = decode_pixels(encoder, sha256s, encoding) if trained else None
    return Taught(sha256s, class_numbers(table["label"], classes), classes, encoding, decoded)


def folds_of(count: int, folds: int, seed: int) -> Tensor:
    """(N,) int64: the fold that each image is in, as many in each or one more."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)) % folds


@dataclass(frozen=True)
class Fold:
    """Rows of images: those that teach, those that are searched, those that are asked about."""

    teaching: Tensor
    searched: Tensor
    asked: Tensor


def draw_folds(labels: Tensor, folds: int, seed: int, untaught: bool) -> Iterator[Fold]:
    """Folds of the images with these class numbers (N,), or if ``untaught`` of their labels."""
    count = int(labels.max()) + 1 if untaught else len(labels)
    of = folds_of(count, folds, seed)
    of = of[labels] if untaught else of
    for number in range(folds):
        own, rest = torch.nonzero(of == number).flatten(), torch.nonzero(of != number).flatten()
        if untaught:
            own = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))]
            joined = own[len(own) // 2 :]
            yield Fold(rest, torch.cat([rest, joined]), own[: len(own) // 2])
        else:
            yield Fold(rest, rest, own)


@dataclass(frozen=True)
class Made:
    """A tokenizer, and of all N images their unit ``embeddings`` (N, D) and what a retriever
    ``sees`` of them; where it learns to read itself, the ``reader`` that it begins with."""

    tokenizer: Tokenizer
    embeddings: Tensor
    sees: EncodedViews | Pixels
    reader: QueryEncoder | None = None


def some(images: Any, rows: Tensor) -> Any:
    """EncodedViews or Pixels of those at ``rows`` (n,)."""
    if isinstance(images, Pixels):
        return replace(images, pixels=images.pixels[rows.numpy()])
    tokens = None if images.tokens is None else images.tokens[rows.numpy()]
    return EncodedViews(images.summaries[rows.numpy()], tokens)


def teach(params: Params, taught: Taught, rows: Tensor, folder: Path) -> Made:
    """A tokenizer taught by the images at ``rows`` (n,)."""
    settings, machine, parts = params.tokenizer, taught.encoding.machine, (rows, NOTHING)
    pretrained = create_encoder(params.encoder, params.seed)
    classes, labels = taught.labels[rows].unique(return_inverse=True)
    torch.manual_seed(params.seed)
    if not settings.tune_encoder:
        model = Tokenizer(settings, pretrained.width, len(classes), None)
        seen = encode_views(pretrained, taught.sha256s, params.augment, 0, taught.encoding)
        data: Any = [some(seen.without_tokens(), part) for part in parts]
    else:
        assert taught.pixels is not None, "an encoder that is trained is given pixels"
        model = Tokenizer(settings, pretrained.width, len(classes), deepcopy(pretrained))
        decoded = Pixels(taught.pixels, pretrained.decoding.size, params.augment)
        data = [some(decoded, part) for part in parts]
    labelled = [
        LabelledImages(images, numbers)
        for images, numbers in zip(data, (labels, NOTHING), strict=True)
    ]
    run = run_in(folder, "tokenizer", machine, params.seed)
    tokenizing.train(model, labelled[0], labelled[1], settings, run)
    run.clear()
    encoding = taught.encoding
    if model.encoder is not None:  # seen by nobody else
        encoding = replace(encoding, cache=folder)
        seen = encode_views(model.encoder, taught.sha256s, params.augment, 0, encoding)
    flat = embed_summaries(
        model, seen.summaries.reshape(-1, seen.summaries.shape[2]), machine.device
    )
    adapted = flat.view(*seen.summaries.shape[:2], -1)  # (N, V, D)
    made = Made(model.cpu(), adapted[:, 0].contiguous(), EncodedViews(adapted.numpy(), seen.tokens))
    if params.retriever.tune_encoder:
        assert taught.pixels is not None, "whoever learns to read is given pixels"
        reader = initial_query_encoder(pretrained, deepcopy(model), params.retriever.encoder)
        plain = Pixels(taught.pixels, pretrained.decoding.size, params.augment)
        return replace(made, sees=plain, reader=reader)
    if params.retriever.encoder == "pretrained":
        return replace(
            made, sees=encode_views(pretrained, taught.sha256s, params.augment, 0, encoding)
        )
    return made


def run_in(folder: Path, name: str, machine: Machine, seed: int) -> TrainingRun:
    """A training whose state is kept below ``folder`` and whose metrics are dropped."""
    resume = Resume(folder, name)
    return TrainingRun(machine=machine, seed=seed, log=lambda row, step: None, resume=resume)


@torch.inference_mode()
def openings(model: Retriever, images: EncodedViews | Pixels, machine: Machine) -> Tensor:
    """(Q, L): the log-probability with which a retriever predicts each first code."""
    found, levels = [], model.decoder.shape.levels
    for rows, new in full_batches(len(images), 64):
        inputs = [part.to(machine.device) for part in images.plain(rows)]
        blank = torch.zeros(len(rows), levels, dtype=torch.int64)
        with machine.precision():
            logits = model.eval()(inputs, blank.to(machine.device))[:, 0]
        found.append(logits[:new].float().log_softmax(-1).cpu())
    return torch.cat(found)


def write(params: Params, taught: Taught, fold: Fold, made: Made, folder: Path) -> Tensor:
    """Train a retriever on the fold's images; return its predictions for those asked about, as
    ``openings`` does. The last step's average is taken, because nothing validates."""
    settings, machine, rows = params.retriever, taught.encoding.machine, fold.teaching
    pretrained = create_encoder(params.encoder, params.seed)
    features = encode_summaries(pretrained, [taught.sha256s[row] for row in rows], taught.encoding)
    mined = RULES[params.pairs.rule](
        torch.from_numpy(features), taught.labels[rows], params.pairs.neighbours, params.seed
    )
    anchors, ranks = torch.nonzero(mined.rows >= 0, as_tuple=True)
    positives = retrieving.group_positives(anchors, mined.rows[anchors, ranks], len(rows))
    codes = made.tokenizer.tokenize(made.embeddings[rows])
    reader = made.reader or initial_query_encoder(pretrained, made.tokenizer, settings.encoder)
    width, encoder = params.tokenizer.width, reader.encoder
    shape = Shape(
        summary_width=encoder.width if reader.adapter is None else width,
        token_width=encoder.token_width,
        token_count=encoder.token_count,
        levels=codes.shape[1],
        codebook=params.tokenizer.codebook,
    )
    torch.manual_seed(params.seed)
    model = Retriever(made.reader, IdentifierDecoder(settings, shape))
    training = retrieving.Pairs(some(made.sees, rows), codes, *positives)
    nothing = LabelledImages(some(made.sees, NOTHING), NOTHING)
    validation = retrieving.Validation(nothing, taught.labels[rows])
    run = run_in(folder, "retriever", machine, params.seed)
    retrieving.train(model, training, validation, settings, run)
    run.clear()
    return openings(model, some(made.sees, fold.asked), machine)


def describe(params: Params, taught: Taught, fold: Fold, folder: Path, name: str) -> Tensor:
    """Unit vectors (N, D) of all images by a baseline that the fold's images teach."""
    recipe, machine = list_recipes(params.baselines)[name], taught.encoding.machine
    tuned = params.tokenizer.tune_encoder
    encoder = create_encoder(params.encoder, params.seed)
    images: Any
    if tuned:
        assert taught.pixels is not None, "an encoder that is trained is given pixels"
        images = Pixels(taught.pixels, encoder.decoding.size, params.augment)
    else:
        images = encode_views(encoder, taught.sha256s, params.augment, 0, taught.encoding)
        images = images if recipe.tokens else images.without_tokens()
    _, labels = taught.labels[fold.teaching].unique(return_inverse=True)
    run = run_in(folder, name, machine, params.seed)
    data = LabelledImages(some(images, fold.teaching), labels)
    model = train_baseline(recipe, encoder, tuned, data, run)
    run.clear()
    found = []
    with torch.inference_mode(), machine.precision():
        for rows, new in full_batches(len(images), 64):
            inputs = [part.to(machine.device) for part in images.plain(rows)]
            told = model(*inputs) if tuned else model.describe(*inputs)
            found.append(told[:new].float().cpu())
    return torch.cat(found)


def ask(params: Params, taught: Taught, fold: Fold, folder: Path, written: bool) -> dict:
    """Every metric of every query of the fold, by the score that orders the database."""
    made = teach(params, taught, fold.teaching, folder)
    label_scorer, database = LabelScorer.build(made.tokenizer), made.embeddings[fold.searched]
    first, queries = made.tokenizer.tokenize(database)[:, 0], made.embeddings[fold.asked]
    label = share_label(made.tokenizer.classify(queries).softmax(-1), label_scorer)
    said = {"label": label}
    if written:
        entry = write(params, taught, fold, made, folder)
        own = share_label(entry.exp() @ label_scorer.code_labels[: entry.shape[1]], label_scorer)
        both = ((label.exp() + own.exp()) / 2).log()
        said |= {"first code": entry, "label as predicted": own, "mean of both labels": both}
    scores: dict[str, Tensor | None] = {SCAN: None}
    scores |= {f"+ {w} × {name}": w * score for name, score in said.items() for w in WEIGHTS}
    if written:
        scores["label as predicted, then cosine"] = 1000 * own
    found, judge = {}, judge_of(taught, fold)
    for name, score in scores.items():

        def added(start: int, end: int, score: Any = score) -> Tensor:
            return score[:, first[start:end]]

        top = brute_force_search(queries, database, MAX_DEPTH, None if score is None else added).ids
        found[name] = judge(top)
    return found


def share_label(query_labels: Tensor, label_scorer: LabelScorer) -> Tensor:
    """Return the log-probabilities (Q, L) that queries and first codes have one label, of the label
    probabilities (Q, C) of queries."""
    shared = query_labels @ label_scorer.code_labels.T
    return shared.clamp_min(torch.finfo(shared.dtype).tiny).log()


def ask_baseline(params: Params, taught: Taught, fold: Fold, folder: Path, name: str) -> dict:
    """Every metric of every query of the fold, by a baseline's descriptors."""
    vectors = describe(params, taught, fold, folder, name)
    top = brute_force_search(vectors[fold.asked], vectors[fold.searched], MAX_DEPTH).ids
    return {name: judge_of(taught, fold)(top)}


def judge_of(taught: Taught, fold: Fold) -> Callable[[Tensor], Values]:
    """Tells every metric of every query of the fold, of lists (Q, k) of rows searched."""
    rows, asked = fold.searched.tolist(), fold.asked.tolist()
    names, hashes = pl.Series(taught.classes), pl.Series(taught.sha256s)
    names = names[taught.labels.tolist()]  # of each image
    wanted = count_positives(names[asked], hashes[asked], names[rows], hashes[rows])

    def judge(top: Tensor) -> Values:
        hits = mark_relevant(top.numpy(), names[asked], names[rows])
        return metrics.by_query(hits, wanted, CUTOFFS)

    return judge


def page(title: str, found: dict[str, Values], told: str) -> str:
    """Markdown: a row a score, with p beside the scan's after Holm's correction."""
    lines = [
        ["", "P@1", "P@10", "P@20", "mAP@R", "p at P@10", "p at mAP@R"],
        ["---", *["---:"] * 6],
    ]
    others = found.keys() - {SCAN} if SCAN in found else set()
    chance = {
        each: corrected({name: p_value(found[name][each], found[SCAN][each]) for name in others})
        for each in TESTED
    }
    for name, values in found.items():
        beside = ["", ""]
        if SCAN in found and name != SCAN:
            beside = [f"{chance[each][name]:.4f}" for each in TESTED]
        lines.append([name, *(f"{values[each].mean():.4f}" for each in SHOWN), *beside])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {title}\n\n{body}\n\n{told}\n"


def main() -> int:
    """Teaches and asks, fold after fold, and adds what came out to the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("params", type=Path)
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="changes")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--no-retriever", action="store_true", help="do without what it says")
    parser.add_argument("--baseline", choices=["cgd", "irt_r"], help="teach it, ask its scan")
    parser.add_argument("--untaught", action="store_true", help="folds of labels, not of images")
    parser.add_argument("--folder", type=Path, default=Path(".cache/crossvalidation"))
    options = parser.parse_args()
    params = params_of(options.params, options.changes)
    taught = read_taught(params, options.folder / options.params.stem)
    folds = draw_folds(taught.labels, options.folds, params.seed, options.untaught)
    started = time.perf_counter()
    found: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for number, fold in enumerate(tqdm(folds, "folds", options.folds, disable=None)):
        seeded = replace(params, seed=params.seed + number)
        with tempfile.TemporaryDirectory() as place:
            if options.baseline:
                one = ask_baseline(seeded, taught, fold, Path(place), options.baseline)
            else:
                one = ask(seeded, taught, fold, Path(place), not options.no_retriever)
        for name, values in one.items():
            for metric, each in values.items():
                found[name][metric].append(each)
    joined = {
        name: {metric: np.concatenate(parts) for metric, parts in values.items()}
        for name, values in found.items()
    }
    commit = git(Path(__file__).parent, "rev-parse", "--short", "HEAD") or "unknown"
    about = [options.baseline] if options.baseline else []
    about += ["labels nobody taught"] if options.untaught else []
    title = ", ".join([" ".join([options.params.stem, *options.changes]), *about])
    cores = len(os.sched_getaffinity(0))
    asked = len(next(iter(joined.values()))["map/R"])
    told = (
        f"{asked:,} images, {options.folds} folds, {taught.encoding.machine.decoder}, "
        f"{format_count(cores, 'core')} "
        f"({name_processor(taught.encoding.machine.device)}), commit {commit}, "
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
    """Return the settings of a file with other values at some keys. Raises ParamsError for an
    unknown key, SystemExit for settings that are not meant here."""
    load(path)
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for change in changes:
        key, _, value = change.partition("=")
        tree = set_value(tree, key, yaml.safe_load(value), where=str(path))
    params: Params = parse(Params, tree, where=str(path))
    check(params)
    settings = params.tokenizer
    if settings.labels != "given":
        raise SystemExit("labels: clusters are not meant here")
    return params


if __name__ == "__main__":
    sys.exit(main())
