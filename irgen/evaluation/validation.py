"""Search the database with validation images, to fit ranking and calibration."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.checkpoints.models import Models
from irgen.compute.batches import full_batches
from irgen.encoding.encode import Encoding
from irgen.encoding.query_features import encode_queries, select_queries
from irgen.evaluation import calibration, ranking
from irgen.evaluation.query_set import drop_self, mark_relevant, search_depth
from irgen.index.kinds import number_labels
from irgen.search import beam, engine
from irgen.search.brute_force import brute_force_search
from irgen.search.calibration import NO_LABELS, Calibration, Uncalibrated, apply
from irgen.search.decoder import Decoder
from irgen.search.engine import Options, QueryFeatures
from irgen.search.label_scorer import LabelScorer
from irgen.search.ranking import NEAREST, Ranking
from irgen.search.relevance import Ranker, weigh_votes
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


@dataclass(frozen=True)
class Validation:
    """At most MOST_QUERIES validation ``queries`` with their features, and the ``database`` that
    they search; rows of ``snapshot`` are its rows."""

    queries: pl.DataFrame
    features: QueryFeatures
    database: pl.DataFrame
    snapshot: Snapshot
    models: Models
    decoder: Decoder
    encoding: Encoding

    @classmethod
    def prepare(
        cls,
        models: Models,
        snapshot: Snapshot,
        validation: pl.DataFrame,
        database: pl.DataFrame,
        encoding: Encoding,
    ) -> "Validation":
        """Choose the queries, evenly spread, and encode them."""
        count = min(len(validation), MOST_QUERIES)
        queries = validation[np.linspace(0, len(validation) - 1, count).astype(int)]
        features = encode_queries(models, queries["sha256"].to_list(), encoding)
        label_scorer = LabelScorer.build(models.tokenizer)
        decoder = Decoder(models.retriever.decoder, encoding.machine.decoder, label_scorer)
        return cls(queries, features, database, snapshot, models, decoder, encoding)

    @property
    def hashes(self) -> tuple[pl.Series, pl.Series]:
        """Return the content hashes of queries and database: a query never counts itself."""
        return self.queries["sha256"], self.database["sha256"]

    def batches(self) -> Iterator[tuple[slice, int, QueryFeatures]]:
        """Yield the rows of each batch of queries, their number, and the features of a full
        batch."""
        size = self.encoding.settings.batch_size
        for rows, new in full_batches(len(self.queries), size):
            start = int(rows[0])
            yield (
                slice(start, start + new),
                new,
                select_queries(self.features, rows, self.models.device),
            )


def search_validation(
    validation: Validation, options: Options, k: int, ranker: Ranker | None
) -> ValidationHits:
    """Return the first k hits of the validation queries, as the index searches."""
    queries, database, hashes = validation.queries, validation.database, validation.hashes
    depth = search_depth(k, *hashes)
    options = replace(options, beams=max(k, options.beams))
    shape = len(queries), depth
    rows, cosines = np.empty(shape, np.int64), np.empty(shape, np.float32)
    for part, new, features in validation.batches():
        hits = engine.search(
            validation.decoder, features, validation.snapshot, depth, options, ranker
        )
        rows[part], cosines[part] = hits.rows[:new].cpu(), hits.cosine[:new].cpu()
    rows, cosines = drop_self(rows, cosines, *hashes, k)
    relevant = mark_relevant(rows, queries["label"], database["label"])
    labelled = queries["label"].null_count() < len(queries)
    return ValidationHits(rows, cosines, relevant, labelled)


@torch.inference_mode()
def fit_ranking(validation: Validation, kinds: Tensor) -> Ranking | Uncalibrated:
    """Return the ranking fitted to the validation queries, or why there is none. ``kinds`` (N,):
    those of the database (``number_labels``). Images of other labels than the taught ones take no
    part: no validation query is of theirs."""
    models, snapshot = validation.models, validation.snapshot
    taught = kinds < len(models.labels)
    if not bool(taught.any()):
        return Uncalibrated(reason="no image of the database has a label that was taught")
    query_hashes, database_hashes = validation.hashes
    hashes = query_hashes, database_hashes.filter(taught.numpy())
    label_scorer = validation.decoder.label_scorer
    assert label_scorer is not None, "the codes are the tokenizer's"
    depth = search_depth(NEAREST, *hashes)
    shape = len(validation.queries), depth
    rows, cosines = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    truth = number_labels(validation.queries["label"], models.labels).numpy()
    used = ranking.choose_queries(truth, len(models.labels))
    label_probs = np.empty((len(used), len(models.labels)), np.float32)
    embeddings = snapshot.segments[0].embeddings
    if not bool(taught.all()):  # a copy of all embeddings takes much memory
        embeddings = embeddings[taught.to(models.device)]
    tries = [part.live for part in snapshot.live_parts(fresh=False)]
    for part, new, features in validation.batches():
        nearest = brute_force_search(features.embedding, embeddings, depth)
        rows[part], cosines[part] = nearest.ids[:new].cpu(), nearest.scores[:new].cpu()
        state = validation.decoder.start(features.summary, features.tokens)
        first = beam.search(state, tries, 1).first_code_log_probs
        fitted = (used >= part.start) & (used < part.stop)
        probs = label_scorer.read_labels(features.embedding, first).cpu().numpy()
        label_probs[fitted] = probs[used[fitted] - part.start]
    rows, _ = drop_self(rows, cosines, *hashes, NEAREST)
    nearest_rows = torch.from_numpy(rows[used])
    exist, trained = nearest_rows >= 0, snapshot.trained.cpu()[taught][nearest_rows]
    voters = kinds[taught][nearest_rows].masked_fill(~exist, -1)
    votes = weigh_votes(trained, exist)
    return ranking.fit(label_probs, voters.numpy(), votes.numpy(), truth[used])


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
