"""The index that is served: the models, the database's images and how sure a hit is, one folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.catalog.table import known_from, read_table
from irgen.checkpoints.calibration import CALIBRATION, save_calibration
from irgen.checkpoints.identifiers import Identified, check_served, load_identified
from irgen.checkpoints.models import Models, assemble, save_models
from irgen.checkpoints.weights import create_encoder
from irgen.encoding.batches import full_batches
from irgen.encoding.encode import Encoding, open_encoding
from irgen.encoding.query_features import encode_queries, select_queries
from irgen.errors import CatalogError
from irgen.evaluation import calibration, runs
from irgen.index.index import Index
from irgen.index.rows import hash_distinct
from irgen.params import Params
from irgen.search import engine
from irgen.search.calibration import Calibration, Uncalibrated, apply
from irgen.search.decoder import Decoder
from irgen.search.engine import Options
from irgen.search.label_scorer import LabelScorer
from irgen.search.snapshot import Segment, Snapshot
from irgen.workspace import Workspace

# Of a search of the index, kept with it:
DEFAULTS = ("beams", "candidates", "fresh_beams", "rerank_weight", "rerank_signal", "order_by")
MOST_QUERIES = 2000  # validation images asked: more would hardly move the map


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/index``, an index of the database's images that opens by itself.

    Raises IndexingError if the codes are not the tokenizer's, and CatalogError without an image.
    """
    check_served(params.identifiers.rule)
    train, validation, database = (
        read_table(workspace.existing("catalog", f"{role}.parquet"))
        for role in ("train", "validation", "database")
    )
    if not len(database):
        raise CatalogError("the database has no image; name its roles in catalog: database")
    encoding = open_encoding(params.compute, workspace)
    models = assemble(
        workspace.existing("tokenizer", "tokenizer.safetensors"),
        workspace.existing("retriever", "retriever.safetensors"),
        create_encoder(params.encoder, params.seed),
    ).to(encoding.machine.device)
    identified = load_identified(workspace.existing("identifiers", "database"))
    trained = torch.from_numpy(known_from(database, train))
    options = Options(
        beams=params.evaluate.beams,
        candidates=params.evaluate.candidates,
        rerank_weight=params.evaluate.rerank_weight,
        rerank_signal=params.evaluate.rerank_signal,
        order_by=params.evaluate.order_by,
        fresh_beams=params.index.fresh_beams,
    )
    defaults = {name: getattr(options, name) for name in DEFAULTS}
    snapshot = hold(identified, trained, models)
    k = max(params.evaluate.cutoffs)  # hits that are looked at, of which probabilities must hold
    answers = ask(models, snapshot, (validation, database), options, k, encoding)
    known = calibrate(answers)

    def write_models(folder: Path) -> None:
        save_models(folder, models, params.encoder, params.tokenizer, params.retriever)
        save_calibration(folder / CALIBRATION, known)

    Index.create(
        workspace.stage("index"),
        models_writer=write_models,
        config={"search": defaults},
        items=database.drop("role"),
        codebooks=models.tokenizer.codebooks,
        codes=identified.codes,
        embeddings=identified.embeddings,
        trained=trained,
        replace=True,
    )
    found = numbers(known, answers, trained.numpy())
    return found | size(workspace.stage("index"))


@dataclass(frozen=True)
class Answers:
    """What validation images found, best first: rows of the database ``ids`` (Q, k), −1 where there
    are fewer, their ``cosines`` (Q, k), −inf there, and whether they are ``right`` (Q, k)."""

    ids: np.ndarray
    cosines: np.ndarray
    right: np.ndarray


def hold(identified: Identified, trained: Tensor, models: Models) -> Snapshot:
    """The database as the index will hold it, in rows as ``identified`` has them; ``trained`` (N,)
    bool: the retriever was trained on the image."""
    keys = torch.from_numpy(hash_distinct(identified.ids))
    segment = Segment.build(identified.codes, identified.embeddings.half(), keys, trained)
    alive = torch.ones(len(keys), dtype=torch.bool, device=models.device)
    return Snapshot.of((segment.to(models.device),), (alive,), models.tokenizer.codebooks)


def ask(
    models: Models,
    snapshot: Snapshot,
    tables: tuple[pl.DataFrame, pl.DataFrame],
    options: Options,
    k: int,
    encoding: Encoding,
) -> Answers:
    """The first k that validation images, at most MOST_QUERIES of them, find in the database.

    ``tables`` = (validation, database); rows of ``snapshot`` are the database's. A query never
    counts itself nor a copy of itself, which the database may hold.
    """
    validation, database = tables
    count = min(len(validation), MOST_QUERIES)
    asked = validation[np.linspace(0, len(validation) - 1, count).astype(int)]
    hashes = asked["sha256"], database["sha256"]
    depth = runs.search_depth(k, *hashes)
    options = replace(options, beams=max(k, options.beams))  # as the index will search
    read = encode_queries(models, asked["sha256"].to_list(), encoding)
    decoder = Decoder(
        models.retriever.decoder, encoding.machine.decoder, LabelScorer.build(models.tokenizer)
    )
    ids, cosines = np.empty((count, depth), np.int64), np.empty((count, depth), np.float32)
    for rows, new in full_batches(count, encoding.settings.batch_size):
        some = select_queries(read, rows, models.device)
        hits = engine.search(decoder, some, snapshot, depth, options)
        ids[rows[:new]], cosines[rows[:new]] = hits.rows[:new].cpu(), hits.cosine[:new].cpu()
    ids, cosines = runs.without_self(ids, cosines, *hashes, k)
    return Answers(ids, cosines, runs.relevance(ids, asked["label"], database["label"]))


def calibrate(answers: Answers) -> Calibration | Uncalibrated:
    """How sure hits are, or why that cannot be told."""
    if not len(answers.ids):
        return Uncalibrated(
            reason="there are no validation images to learn from: set catalog.validation_fraction "
            "above 0, or give the source a validation role"
        )
    return calibration.fit(answers.cosines, answers.right)


def numbers(
    known: Calibration | Uncalibrated, answers: Answers, trained: np.ndarray
) -> dict[str, float]:
    """What there is to measure of a calibration, nothing if there is none. The gaps are what hits
    are told on average less the share that is right, of images the retriever was ``trained`` (N,)
    on and of others: one map serves both."""
    if isinstance(known, Uncalibrated):
        return {}
    found = {"error": known.error, "queries": float(known.queries), "pairs": float(known.pairs)}
    told = apply(known, torch.from_numpy(answers.cosines)).numpy()
    there = answers.ids >= 0
    for name, those in (("trained", trained[answers.ids]), ("fresh", ~trained[answers.ids])):
        if (some := there & those).any():
            found[f"gap/{name}"] = float(told[some].mean() - answers.right[some].mean())
    return {f"calibration/{name}": value for name, value in found.items()}


def size(folder: Path) -> dict[str, float]:
    """Images in an index and what each of them takes on the disk, models apart."""
    with Index.open(folder) as index:
        about = index.info()
    return {
        "images": float(about["images"]),
        "trained": float(about["trained"]),
        "bytes_per_image": about["bytes"]["base"] / about["images"],
    }
