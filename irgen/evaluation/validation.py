"""Search the database with validation images, to learn how probable hits are."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch

from irgen.checkpoints.models import Models
from irgen.compute.batches import full_batches
from irgen.encoding.encode import Encoding
from irgen.encoding.query_features import encode_queries, select_queries
from irgen.evaluation import calibration
from irgen.evaluation.query_set import drop_self, mark_relevant, search_depth
from irgen.search import engine
from irgen.search.calibration import NO_LABELS, Calibration, Uncalibrated, apply
from irgen.search.decoder import Decoder
from irgen.search.engine import Options
from irgen.search.label_scorer import LabelScorer
from irgen.search.snapshot import Snapshot

MOST_QUERIES = 2000  # more would hardly change the calibration


@dataclass(frozen=True)
class ValidationHits:
    """Hits of validation queries, best first: database ``rows`` (Q, k), −1 where there are fewer,
    their ``cosines`` (Q, k), −inf there, and whether they are ``relevant`` (Q, k). ``labelled``:
    some query has a label."""

    rows: np.ndarray
    cosines: np.ndarray
    relevant: np.ndarray
    labelled: bool


def search_validation(
    models: Models,
    snapshot: Snapshot,
    validation: pl.DataFrame,
    database: pl.DataFrame,
    options: Options,
    k: int,
    encoding: Encoding,
) -> ValidationHits:
    """Return the first k hits of at most MOST_QUERIES validation images.

    Rows of ``snapshot`` are those of ``database``. A query never counts itself nor a copy of it,
    which the database may hold.
    """
    count = min(len(validation), MOST_QUERIES)
    queries = validation[np.linspace(0, len(validation) - 1, count).astype(int)]
    hashes = queries["sha256"], database["sha256"]
    depth = search_depth(k, *hashes)
    options = replace(options, beams=max(k, options.beams))  # as the index searches
    features = encode_queries(models, queries["sha256"].to_list(), encoding)
    label_scorer = LabelScorer.build(models.tokenizer)
    decoder = Decoder(models.retriever.decoder, encoding.machine.decoder, label_scorer)
    rows, cosines = np.empty((count, depth), np.int64), np.empty((count, depth), np.float32)
    for batch, new in full_batches(count, encoding.settings.batch_size):
        selected = select_queries(features, batch, models.device)
        hits = engine.search(decoder, selected, snapshot, depth, options)
        rows[batch[:new]], cosines[batch[:new]] = hits.rows[:new].cpu(), hits.cosine[:new].cpu()
    rows, cosines = drop_self(rows, cosines, *hashes, k)
    relevant = mark_relevant(rows, queries["label"], database["label"])
    labelled = queries["label"].null_count() < count
    return ValidationHits(rows, cosines, relevant, labelled)


def fit_calibration(hits: ValidationHits) -> Calibration | Uncalibrated:
    """Return the map from cosines to probabilities, or why there is none."""
    if not len(hits.rows):
        return Uncalibrated(
            reason="there are no validation images to learn from: set catalog.validation_fraction "
            "above 0, or give the source a validation role"
        )
    if not hits.labelled:
        return NO_LABELS
    return calibration.fit(hits.cosines, hits.relevant)


def measure_calibration(
    fitted: Calibration | Uncalibrated, hits: ValidationHits, trained: np.ndarray
) -> dict[str, float]:
    """Return the calibration's error and gaps; nothing if there is none.

    A gap is the mean probability of hits minus the share that is relevant. There are two, since one
    map serves both: of images that the retriever was ``trained`` (N,) on, and of the others.
    """
    if isinstance(fitted, Uncalibrated):
        return {}
    metrics = {"error": fitted.error, "queries": float(fitted.queries)}
    metrics["pairs"] = float(fitted.pairs)
    probabilities = apply(fitted, torch.from_numpy(hits.cosines)).numpy()
    for name, group in (("trained", trained[hits.rows]), ("fresh", ~trained[hits.rows])):
        if (chosen := (hits.rows >= 0) & group).any():
            gap = probabilities[chosen].mean() - hits.relevant[chosen].mean()
            metrics[f"gap/{name}"] = float(gap)
    return {f"calibration/{name}": value for name, value in metrics.items()}
