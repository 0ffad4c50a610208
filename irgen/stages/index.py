"""Build the index that is served: models, images and how probable hits are, in one folder.

Time: N log N, for one sort of the images, and a search for each of at most
``validation.MOST_QUERIES`` validation images.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from irgen.catalog.columns import flatten
from irgen.catalog.table import mark_unchanged, read_table
from irgen.checkpoints.calibration import CALIBRATION, save_calibration
from irgen.checkpoints.identifiers import ImageCodes, check_served, load_codes
from irgen.checkpoints.models import Models, assemble, save_models
from irgen.checkpoints.ranking import RANKING, save_ranking
from irgen.checkpoints.text import TEXT_ENCODER, load_text_encoder
from irgen.checkpoints.weights import create_encoder
from irgen.encoding.encode import open_encoding
from irgen.errors import CatalogError
from irgen.evaluation.validation import (
    Validation,
    fit_calibration,
    fit_ranking,
    measure_calibration,
    search_validation,
)
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.index.kinds import number_rows
from irgen.index.metadata import OURS
from irgen.index.rows import hash_distinct
from irgen.params import Params
from irgen.search.calibration import NO_LABELS, Uncalibrated
from irgen.search.engine import Options
from irgen.search.label_scorer import LabelScorer
from irgen.search.ranking import Ranking
from irgen.search.relevance import Ranker
from irgen.search.snapshot import Segment, Snapshot

# Search options that the index keeps as its defaults:
DEFAULTS = ("beams", "candidates", "fresh_beams", "hedge")


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/index``, a self-contained index of the database's images.

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
    )
    text_encoder = load_text_encoder(workspace.existing("texts", TEXT_ENCODER))
    models = replace(models, text_encoder=text_encoder).to(encoding.machine.device)
    identified = load_codes(workspace.existing("identifiers", "database"))
    trained = torch.from_numpy(mark_unchanged(database, train))
    options = Options.from_settings(params.evaluate, params.index.fresh_beams)
    options = replace(options, trie=True)  # an index always searches with its trie
    defaults = {name: getattr(options, name) for name in DEFAULTS}
    k = max(params.evaluate.cutoffs)  # probabilities must hold for hits that people look at
    snapshot = build_snapshot(identified, trained, models)
    queries = Validation.prepare(models, snapshot, validation, database, encoding)
    code_labels = LabelScorer.build(models.tokenizer).code_labels
    kinds = number_rows(database, identified.codes, models.labels, code_labels)
    ranking: Ranking | Uncalibrated = NO_LABELS
    if params.tokenizer.labels == "given":
        ranking = fit_ranking(queries, kinds)
    ranker = None
    if isinstance(ranking, Ranking):
        ranker = Ranker(ranking, kinds.to(models.device), snapshot.trained)
    hits = search_validation(queries, options, k, ranker)
    del snapshot, queries  # they hold all embeddings in half precision
    calibration = fit_calibration(hits)

    def write_models(folder: Path) -> None:
        save_models(folder, models, params.encoder, params.tokenizer, params.retriever)
        save_calibration(folder / CALIBRATION, calibration)
        save_ranking(folder / RANKING, ranking)

    Index.create(
        workspace.stage("index"),
        models_writer=write_models,
        config={
            "search": defaults,
            "encoder_precision": encoding.machine.decoder,
            "queries": int((database["role"] == "query").sum()),
        },
        items=flatten(database.drop("role"), OURS),
        codebooks=models.tokenizer.codebooks,
        codes=identified.codes,
        embeddings=identified.embeddings,
        trained=trained,
        replace=True,
    )
    metrics = measure_calibration(calibration, hits, trained.numpy())
    if isinstance(ranking, Ranking):
        metrics |= {"ranking/error": ranking.error, "ranking/queries": float(ranking.queries)}
        metrics |= {"ranking/recognised": ranking.recognised, "ranking/mistaken": ranking.mistaken}
    return metrics | measure_size(workspace.stage("index"))


def build_snapshot(identified: ImageCodes, trained: Tensor, models: Models) -> Snapshot:
    """Return the database as a snapshot, rows as in ``identified``. ``trained`` (N,) bool: the
    retriever was trained on the image."""
    keys = torch.from_numpy(hash_distinct(identified.ids))
    segment = Segment.build(identified.codes, identified.embeddings.half(), keys, trained)
    alive = torch.ones(len(keys), dtype=torch.bool, device=models.device)
    return Snapshot.build((segment.to(models.device),), (alive,), models.tokenizer.codebooks)


def measure_size(folder: Path) -> dict[str, float]:
    """Return the number of images in an index, and the bytes on disk for each, without models."""
    with Index.open(folder) as index:
        info = index.info()
    return {
        "images": float(info["images"]),
        "trained": float(info["trained"]),
        "bytes_per_image": info["bytes"]["base"] / info["images"],
    }
