"""Run generative search with a decoder of the usual size and random weights, and time its parts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from irgen import params
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.search import beam, engine, rank
from irgen.search.decoder import Decoder
from irgen.search.engine import Hits, Options, QueryFeatures
from irgen.search.snapshot import Segment, Snapshot
from speed import published
from speed.stopwatch import Repeats, Times

SUMMARY, TOKENS, TOKEN_WIDTH = 256, 9, 1280  # S, P, T of photos' preset
WIDTH, LAYERS, HEADS = 256, 1, 4  # of the decoder that irgen init chooses
SHARPNESS = 5.0  # factor of the random part of the logits, for the spread of trained ones
K = 10


def make_decoder(
    codes: Tensor, size: int, layers: int = LAYERS, seed: int = 0
) -> IdentifierDecoder:
    """Return a decoder with random weights, for codebooks of ``size`` = L codes. Its biases are the
    logarithms of how often each code occurs in ``codes`` (N, M), so that beams go where images
    are, as those of a trained decoder do."""
    torch.manual_seed(seed)
    default = params.load(Path(__file__).parents[2] / "params.yaml").retriever
    settings = replace(default, width=WIDTH, layers=layers, heads=HEADS, dropout=0.0)
    shape = Shape(
        summary_width=SUMMARY,
        token_width=TOKEN_WIDTH,
        token_count=TOKENS,
        levels=codes.shape[1],
        codebook=size,
    )
    model = IdentifierDecoder(settings, shape).eval().requires_grad_(False)
    model.output_weights *= SHARPNESS
    for level, column in enumerate(codes.T):
        counts = torch.bincount(column.long(), minlength=size) + 1
        model.output_biases[level] = (counts / counts.sum()).log()
    return model


def make_snapshot(vectors: np.ndarray, codes: Tensor, codebooks: Tensor) -> Snapshot:
    """Build an index in memory; the retriever was trained on all images, and none is removed."""
    keys = np.random.default_rng(0).permutation(len(codes))
    segment = Segment.build(
        codes,
        torch.from_numpy(np.array(vectors)),
        torch.from_numpy(keys),
        torch.ones(len(codes), dtype=torch.bool),
    )
    return Snapshot.build((segment,), (torch.ones(len(codes), dtype=torch.bool),), codebooks)


@dataclass(frozen=True)
class QueryPool:
    """Hold the features of many queries, so that successive batches differ."""

    embeddings: Tensor  # (n, D)
    tokens: Tensor  # (n, P, T)

    @classmethod
    def with_random_tokens(cls, embeddings: Tensor, seed: int = 0) -> "QueryPool":
        """Return a pool with these embeddings (n, D) and random image tokens."""
        generator = torch.Generator().manual_seed(seed)
        shape = (len(embeddings), TOKENS, TOKEN_WIDTH)
        return cls(embeddings, torch.randn(shape, generator=generator))

    def batch(self, number: int, size: int) -> QueryFeatures:
        """Return the features of the batch of this number; the pool repeats after its end."""
        rows = (torch.arange(size) + number * size) % len(self.embeddings)
        return QueryFeatures(self.embeddings[rows], self.tokens[rows], self.embeddings[rows])


@dataclass(frozen=True)
class Search:
    """Search one index with batches of queries; a call runs the batch of this number."""

    decoder: Decoder
    snapshot: Snapshot
    pool: QueryPool
    batch: int  # queries
    beams: int

    @property
    def options(self) -> Options:
        """Return the default options of an index, with another number of beams."""
        return Options(beams=self.beams)

    def __call__(self, number: int) -> Hits:
        features = self.pool.batch(number, self.batch)
        return engine.search(self.decoder, features, self.snapshot, K, self.options)


@dataclass
class TimedScorer:
    """Pass calls on to a scorer, and add up their time in ``seconds``."""

    scorer: beam.Scorer
    seconds: float = 0.0

    @property
    def queries(self) -> int:
        """Return the number of queries Q."""
        return self.scorer.queries

    @property
    def device(self) -> torch.device:
        """Return the device of the scores."""
        return self.scorer.device

    def step_scores(self, level: int, last: Tensor, origin: Tensor) -> Tensor:
        """Return the scorer's ``step_scores``."""
        started = time.perf_counter()
        scores = self.scorer.step_scores(level, last, origin)
        self.seconds += time.perf_counter() - started
        return scores


PRECISIONS = ("fp32", "bf16", "int8")
PARTS = ("read", "steps", "trie", "candidates")


def time_parts(search: Search, repeats: Repeats) -> tuple[Times, dict[str, Times]]:
    """Return the times of a search, and those of its parts.

    Each repeat runs one batch as a whole, then another batch part by part. ``read``: the decoder
    reads the image tokens. ``steps``: the decoder scores the next codes of all beams, including
    the reordering of its cache. ``trie``: the rest of the beam search, that is children, masks and
    the best of them. ``candidates``: images are gathered, compared with the query and sorted. The
    search for copies of the query is in the whole alone.
    """
    whole: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    started = time.perf_counter()
    for number in range(-repeats.warmups, repeats.maximum):
        if time.perf_counter() - started > repeats.seconds and number >= repeats.minimum:
            break
        batch_started = time.perf_counter()
        search(2 * number)
        seconds = time.perf_counter() - batch_started
        part_seconds = _run_parts(search, 2 * number + 1)
        if number >= 0:
            whole.append(seconds)
            for name, value in zip(PARTS, part_seconds, strict=True):
                parts[name].append(value)
    return Times(tuple(whole)), {name: Times(tuple(seconds)) for name, seconds in parts.items()}


def _run_parts(search: Search, number: int) -> tuple[float, float, float, float]:
    """Run one batch; return the seconds of the four PARTS."""
    features = search.pool.batch(number, search.batch)
    started = time.perf_counter()
    parts = search.snapshot.live_parts(fresh=False)
    scorer = TimedScorer(search.decoder.start(features.summary, features.tokens))
    read_ended = time.perf_counter()
    beams = beam.search(scorer, [part.live for part in parts], search.beams)
    beams_ended = time.perf_counter()
    candidates = rank.gather(search.snapshot, parts, beams, search.options.candidates)
    cosines = rank.cosine(candidates.rows, features.embedding, search.snapshot)
    rank.order_by_score(candidates, cosines)
    ended = time.perf_counter()
    trie_seconds = beams_ended - read_ended - scorer.seconds
    return read_ended - started, scorer.seconds, trie_seconds, ended - beams_ended


@dataclass(frozen=True)
class Agreement:
    """Count, of ``queries``, the ``identical`` lists of codes, and the lists that are the ``same``
    up to the order of scores that differ by less than ``TIE``; ``difference``: the largest between
    two scores."""

    queries: int
    identical: int
    same: int
    difference: float

    @property
    def all(self) -> bool:
        """Tell whether every query's list is the same."""
        return self.same == self.queries

    def __str__(self) -> str:
        if self.identical == self.queries:
            return f"yes: {self.identical} of {self.queries} lists identical"
        verdict = "yes" if self.all else "NO"
        return (
            f"{verdict}: {self.identical} of {self.queries} lists identical, {self.same} the same "
            f"up to log-probabilities nearer than {TIE:g}"
        )


TIE = 1e-4


def compare_with_published(
    search: Search, model: IdentifierDecoder, trie: published.Node
) -> Agreement:
    """Compare the codes of one batch of ``search``, whose decoder is ``model`` in fp32, with those
    of the published search."""
    features = search.pool.batch(0, search.batch)
    parts = [part.live for part in search.snapshot.live_parts(fresh=False)]
    scorer = search.decoder.start(features.summary, features.tokens)
    ours = beam.search(scorer, parts, search.beams)
    identical = same = 0
    largest = 0.0
    for query in range(search.batch):
        summary, tokens = (part[query : query + 1] for part in (features.summary, features.tokens))
        theirs = published.search(model, summary, tokens, trie, search.beams)
        scores = theirs.probabilities.log()
        difference = float((scores - ours.scores[query]).abs().max())
        equal = bool((theirs.codes == ours.codes[query]).all())
        largest, identical = max(largest, difference), identical + equal
        same += equal or (
            difference < TIE and _equal_up_to_ties(theirs.codes, ours.codes[query], scores)
        )
    return Agreement(search.batch, identical, same, largest)


def _equal_up_to_ties(codes: Tensor, other_codes: Tensor, scores: Tensor) -> bool:
    """Tell whether two lists of codes (W, M) are equal, except for codes that tie with the last of
    ``scores`` (W,)."""
    above_last = scores - scores[-1] >= TIE
    others = {tuple(code) for code in other_codes.tolist()}
    return all(tuple(code) in others for code in codes[above_last].tolist())


def overlap(reference: Search, other: Search, batches: Sequence[int]) -> float:
    """Return the share of the images that ``reference`` returns and ``other`` returns too."""
    shares = []
    for number in batches:
        rows, other_rows = reference(number).rows, other(number).rows
        shared = (rows[:, :, None] == other_rows[:, None, :]).any(-1) & (rows >= 0)
        shares.append(float(shared.sum() / (rows >= 0).sum().clamp_min(1)))
    return float(np.mean(shares))
