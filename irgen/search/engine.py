"""Search an index: collect images whose codes the retriever predicts, images under the query's own
code, and images added after its training by their embeddings; then rank them together.

To add a search option, add a field to ``Options`` and a command-line option in
``irgen/commands/search.py``.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.compute.machine import run_on_fitting_cores
from irgen.errors import IndexingError
from irgen.search import beam, nearby, rank
from irgen.search.beam import Beams
from irgen.search.decoder import Decoder, DecoderState
from irgen.search.live import LiveTrie
from irgen.search.nearby import COPY_COSINE
from irgen.search.rank import Candidates
from irgen.search.ranking import NEAREST
from irgen.search.relevance import Ranker, rank_candidates
from irgen.search.result import Result
from irgen.search.snapshot import Snapshot

if TYPE_CHECKING:
    import polars as pl

    from irgen.params import Evaluate

VERSION = 6  # raise when a search finds other images, or gives other scores
TEXT_SHARE = 0.6  # of a score in words: how well texts match; the rest is the cosine's
PREFIXES = 32  # beams before the last level, where labels rank: more found fewer of the right label
MOST_HITS, MOST_CANDIDATES = 10_000, 1_000_000  # of a query; more would not fit in memory


def check_count(name: str, value: int, *, least: int = 1, most: int = MOST_HITS) -> None:
    """Raise IndexingError if an option is not from ``least`` to ``most``."""
    if value < least:
        raise IndexingError(f"{name}: {value} is too few; allowed: {least} or more")
    if value > most:
        raise IndexingError(f"{name}: {value:,} is too many; allowed: at most {most:,}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of one search.

    ``beams``: code sequences kept by beam search (W); where labels rank, at most ``PREFIXES`` of
    them before the last level. ``candidates``: maximum number of images gathered from them.
    ``fresh_beams``: beams that follow the query's embedding to images that the retriever was not
    trained on; 0 turns this off.

    ``rerank``: sort all candidates by the probability that they have the query's label, then by
    cosine (``irgen.search.relevance``); by cosine alone in an index without a ranking. ``hedge``:
    how much one good hit among the first ten is worth, in units of ten good hits. The larger it is,
    the more other labels that the query may have are shown among the first ten; 0: none.

    Without ``rerank``, candidates are sorted by the retriever's log-probability of their code, then
    by cosine, and ``fresh_beams`` plays no part.

    Images under the query's own code, which the tokenizer gives its embedding, are always among the
    candidates; if there are more than ``candidates``, the nearest. So are copies of the query under
    the ``COPY_BEAMS`` codes nearest to it. Copies come first: an image whose cosine is at least
    ``COPY_COSINE`` has the best score: 1, its cosine where cosines sort, or 0 without ``rerank``.

    ``distinct``: hide an image whose cosine with a better one is at least this. ``min_score`` and
    ``min_cosine``: drop hits below. ``trie``: with False the beam search is unconstrained; codes
    that no image has find nothing.

    Four more are for an ``Index``, not for the engine. ``trust_copies``: a copy of a labelled image
    has its label. It is off unless somebody searches: a measurement by images of the index would
    be told their labels. ``min_probability``: drop hits that are
    less likely to have the query's label. ``allow``: find only some images, by SQL or a polars
    expression over id and metadata, or a collection of ids. ``words``: find only images that have
    all of these in their id or text columns.
    """

    beams: int = 30
    candidates: int = 100
    fresh_beams: int = 30
    rerank: bool = True
    hedge: float = 0.0
    distinct: float | None = None
    min_score: float | None = None
    min_cosine: float | None = None
    min_probability: float | None = None
    allow: "str | pl.Expr | Collection[str] | None" = None
    words: str | None = None
    trie: bool = True
    trust_copies: bool = False

    def __post_init__(self) -> None:
        check_count("beams", self.beams)
        check_count("candidates", self.candidates, most=MOST_CANDIDATES)
        check_count("fresh_beams", self.fresh_beams, least=0)
        for name in ("hedge", "min_score", "min_cosine"):
            value = getattr(self, name)
            if value is not None and math.isnan(value):  # ±∞ lets all or nothing through
                raise IndexingError(f"{name}: {value} is not allowed; allowed: a number")
        if self.hedge < 0:
            raise IndexingError(f"hedge: {self.hedge} is not allowed; allowed: 0 or more")
        for name, least in (("distinct", -1), ("min_probability", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= 1:
                raise IndexingError(f"{name}: {value} is not allowed; allowed: {least} to 1")

    @classmethod
    def from_settings(cls, settings: "Evaluate", fresh_beams: int) -> "Options":
        """Return the options that the section ``evaluate`` of the settings names."""
        names = {field.name for field in fields(cls)} & {field.name for field in fields(settings)}
        chosen = {name: getattr(settings, name) for name in names}
        return cls(fresh_beams=fresh_beams, **chosen)


@dataclass(frozen=True)
class QueryFeatures:
    """Features of a batch of queries, images or words, float32: ``summary`` (Q, S), ``tokens``
    (Q, P, T) and the unit ``embedding`` (Q, D)."""

    summary: Tensor
    tokens: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class Matches:
    """Images whose texts match the words of each query, (Q, n): ``rows`` int64, −1 where there are
    fewer; ``scores`` float32, how well they match, positive and 0 there."""

    rows: Tensor
    scores: Tensor

    def score(self, rows: Tensor) -> Tensor:
        """Return the scores (Q, C) of ``rows`` (Q, C) relative to the best, 0 if they match not."""
        order = self.rows.argsort(dim=1)
        rows_in_order, scores = self.rows.gather(1, order), self.scores.gather(1, order)
        position = torch.searchsorted(rows_in_order, rows).clamp_max(rows_in_order.shape[1] - 1)
        matching = (rows_in_order.gather(1, position) == rows) & (rows >= 0)
        best = scores.amax(1, keepdim=True).clamp_min(1e-9)
        return (scores / best).gather(1, position) * matching


@dataclass(frozen=True)
class Hits:
    """Best k images of each query, best first; (Q, k), −1 or −inf where there are fewer.

    ``rows`` int64. float32: ``scores`` is what hits are sorted by (see ``Options``); ``cosine`` is
    that of the tuned embeddings; ``log_probability`` is the code sequence's under the retriever;
    ``normalised_log_prob`` is the same among the codes that take part in the search. Both
    are −inf for an image found by embedding, unless they sort the hits. ``by_embedding`` bool:
    the retriever did not predict the image's code; the query's embedding led to it. ``untaught``
    (Q,) float32: the probability that the query's label is none of the taught ones; −inf where
    labels do not rank.
    """

    rows: Tensor
    scores: Tensor
    cosine: Tensor
    log_probability: Tensor
    normalised_log_prob: Tensor
    by_embedding: Tensor
    untaught: Tensor

    @classmethod
    def of_cosines(cls, result: Result, rows: Tensor) -> "Hits":
        """Return a result in positions of ``rows`` (n,), whose scores are cosines, as hits."""
        blank = torch.full_like(result.scores, -torch.inf)
        named = torch.cat([rows, rows.new_full((1,), -1)])[result.ids]  # position −1 is row −1
        return cls(named, result.scores, result.scores, blank, blank, named >= 0, _unread(named))


def search(
    decoder: Decoder,
    features: QueryFeatures,
    snapshot: Snapshot,
    k: int,
    options: Options,
    ranker: Ranker | None = None,
    matches: Matches | None = None,
) -> Hits:
    """Return the k best images of ``snapshot`` for each query. Few queries run on one core.

    ``ranker``: of the rows of ``snapshot``; without it, or without the decoder's label scorer,
    cosines re-rank. ``matches``: of queries in words, which are candidates, too; how well they
    match re-ranks together with the cosine.
    """
    embeddings = features.embedding
    beams = options.beams
    if _ranks_labels(decoder, options, ranker):
        beams = min(beams, PREFIXES)
    size = len(embeddings) * beams * decoder.width**2
    return run_on_fitting_cores(
        size, embeddings.device, _search, decoder, features, snapshot, k, options, ranker, matches
    )


@torch.inference_mode()
def _search(
    decoder: Decoder,
    features: QueryFeatures,
    snapshot: Snapshot,
    k: int,
    options: Options,
    ranker: Ranker | None,
    matches: Matches | None,
) -> Hits:
    parts, limit = snapshot.live_parts(fresh=False), max(k, options.candidates)
    embeddings = features.embedding
    if not parts:
        return _no_hits(len(embeddings), k, embeddings.device)
    state = decoder.start(features.summary, features.tokens)
    ranks_labels = _ranks_labels(decoder, options, ranker)
    voters = NEAREST + 1 if ranks_labels else 0  # the first may be the query itself
    own, near = nearby.gather_own_and_near(embeddings, snapshot, limit, voters)
    if not options.rerank:
        own = _score_codes(own, replace(state), snapshot)
    tries, prefixes = [part.live for part in parts], PREFIXES if ranks_labels else None
    beams = _search_codes(state, tries, options, prefixes)
    others = [own, near]
    if options.rerank and options.fresh_beams:
        fresh = nearby.gather(embeddings, snapshot, limit, options.fresh_beams, fresh=True)
        others += [] if fresh is None else [fresh]
    if options.rerank and matches is not None:
        others.append(rank.list_rows(matches.rows, snapshot))
    candidates = rank.gather(snapshot, parts, beams, limit).merge(*others)
    cosines = rank.cosine(candidates.rows, embeddings, snapshot)
    if not options.rerank:
        return _cut(_sort_by_code(candidates, cosines), snapshot, k, options)
    if matches is not None:
        return _cut(_sort_by_words(candidates, cosines, matches), snapshot, k, options)
    if ranker is None or decoder.label_scorer is None:
        return _cut(_sort_by_cosine(candidates, cosines), snapshot, k, options)
    label_probs = decoder.label_scorer.read_labels(embeddings, beams.first_code_log_probs)
    scored = _sort_by_label(candidates, cosines, label_probs, ranker, options.hedge)
    return _cut(scored, snapshot, k, options)


def _ranks_labels(decoder: Decoder, options: Options, ranker: Ranker | None) -> bool:
    """Tell whether a search sorts by the probability of the query's label."""
    return options.rerank and ranker is not None and decoder.label_scorer is not None


def _search_codes(
    state: DecoderState, tries: list[LiveTrie], options: Options, prefixes: int | None
) -> Beams:
    """Return the code sequences that the retriever predicts."""
    if not options.trie:
        return beam.unconstrained_search(state, tries, options.beams)
    return beam.search(state, tries, options.beams, prefixes)


def search_embeddings(
    embeddings: Tensor,
    snapshot: Snapshot,
    k: int,
    options: Options,
    excluded: Tensor | None = None,
) -> Hits:
    """Return the k best images for unit embeddings (Q, D), without the retriever.

    ``options.beams`` beams follow each embedding to the nearest codes; the cosine sorts.
    ``excluded`` (Q,) int64: a row that may not answer the query, such as the query itself.
    """
    size = len(embeddings) * options.beams * snapshot.codebooks[0].numel()
    return run_on_fitting_cores(
        size, embeddings.device, _search_embeddings, embeddings, snapshot, k, options, excluded
    )


@torch.inference_mode()
def _search_embeddings(
    embeddings: Tensor, snapshot: Snapshot, k: int, options: Options, excluded: Tensor | None
) -> Hits:
    limit = max(k, options.candidates) + (excluded is not None)
    candidates = nearby.gather(embeddings, snapshot, limit, options.beams, fresh=False)
    if candidates is None:
        return _no_hits(len(embeddings), k, embeddings.device)
    if excluded is not None:
        candidates = candidates.keep(candidates.rows != excluded[:, None])
    cosines = rank.cosine(candidates.rows, embeddings, snapshot)
    return _cut(_sort_by_cosine(candidates, cosines), snapshot, k, options)


@torch.inference_mode()
def cut_ranked(rows: Tensor, scores: Tensor, snapshot: Snapshot, k: int, options: Options) -> Hits:
    """Return the first k of ``rows`` (n,) int64, best first by their ``scores`` (n,), as the hits
    of one query, Q = 1, which has no embedding: cosines are −inf."""
    limit = max(k, options.candidates)
    rows, scores = rows[None, :limit], scores[None, :limit].float()
    blank = torch.full_like(scores, -torch.inf)
    candidates = rank.list_rows(rows, snapshot)
    order = torch.arange(rows.shape[1], device=rows.device)[None]
    return _cut(_Sorted(candidates, blank, scores, order), snapshot, k, options)


def _score_codes(own: Candidates, state: DecoderState, snapshot: Snapshot) -> Candidates:
    """Return candidates, which share one code a query, with its log-probability."""
    codes = snapshot.gather(own.rows[:, :1], "codes").long()  # (Q, 1, M)
    tries = [part.live for part in snapshot.live_parts(fresh=False)]
    steps, normalised = beam.score_codes(state, tries, codes)
    scores, log_probs = (values.sum(-1).expand_as(own.rows) for values in (steps, normalised))
    return replace(own, scores=scores, normalised_log_probs=log_probs).keep(own.rows >= 0)


@dataclass(frozen=True)
class _Sorted:
    """Candidates with cosines, scores and the order that sorts them, best first; all (Q, C).
    ``untaught`` (Q,): as in ``Hits``; None if labels do not rank."""

    candidates: Candidates
    cosines: Tensor
    scores: Tensor
    order: Tensor
    untaught: Tensor | None = None


def _sort_by_code(candidates: Candidates, cosines: Tensor) -> _Sorted:
    """Sort by the retriever's log-probability of the code, then by cosine; copies have 0."""
    scores = candidates.scores.masked_fill(cosines >= COPY_COSINE, 0)
    return _Sorted(candidates, cosines, scores, rank.order_by_code(candidates, scores, cosines))


def _sort_by_cosine(candidates: Candidates, cosines: Tensor) -> _Sorted:
    """Sort by cosine, which rounding may have lifted above 1."""
    scores = cosines.clamp_max(1)
    return _Sorted(candidates, cosines, scores, rank.order_by_score(candidates, cosines))


def _sort_by_words(candidates: Candidates, cosines: Tensor, matches: Matches) -> _Sorted:
    """Sort by how well texts match, relative to the best, and by cosine from the lowest candidate's
    to the highest (a convex combination, Bruch et al. 2023); by cosine alone if no text does."""
    exist = candidates.rows >= 0
    lowest = cosines.masked_fill(~exist, torch.inf).amin(1, keepdim=True)
    span = (cosines.amax(1, keepdim=True) - lowest).clamp_min(1e-6)
    nearness = ((cosines - lowest) / span).masked_fill(~exist, 0)
    texts = matches.score(candidates.rows)
    share = TEXT_SHARE * texts.any(1, keepdim=True)
    scores = (share * texts + (1 - share) * nearness).masked_fill(~exist, -torch.inf)
    return _Sorted(candidates, cosines, scores, rank.order_by_score(candidates, scores))


def _sort_by_label(
    candidates: Candidates, cosines: Tensor, label_probs: Tensor, ranker: Ranker, hedge: float
) -> _Sorted:
    """Sort by the probability of the query's label; copies have 1 and come first, by cosine."""
    copies = cosines >= COPY_COSINE
    ranked = rank_candidates(ranker, candidates.rows, cosines, copies, label_probs, hedge)
    order = rank.order_by_score(candidates, ranked.sort_keys)
    return _Sorted(candidates, cosines, ranked.probabilities, order, ranked.untaught)


def _cut(ranked: _Sorted, snapshot: Snapshot, k: int, options: Options) -> Hits:
    """Filter sorted candidates and return the first k."""
    candidates, order = ranked.candidates, ranked.order
    rows = candidates.rows.gather(1, order)
    kept = rows >= 0
    if options.distinct is not None:
        kept &= rank.mask_near_duplicates(rows, snapshot, options.distinct)
    if options.min_score is not None:
        kept &= ranked.scores.gather(1, order) >= options.min_score
    if options.min_cosine is not None:
        kept &= ranked.cosines.gather(1, order) >= options.min_cosine
    first = rank.order_kept_first(kept)[:, :k]
    order, kept = order.gather(1, first), kept.gather(1, first)
    missing = k - order.shape[1]

    def column(values: Tensor, blank: float) -> Tensor:
        shown = values.gather(1, order).masked_fill(~kept, blank)
        return F.pad(shown, (0, missing), value=blank)

    return Hits(
        rows=column(candidates.rows, -1),
        scores=column(ranked.scores, -torch.inf),
        cosine=column(ranked.cosines, -torch.inf).clamp_max(1),  # whatever the rounding
        log_probability=column(candidates.scores, -torch.inf),
        normalised_log_prob=column(candidates.normalised_log_probs, -torch.inf),
        by_embedding=column(candidates.by_embedding, False),
        untaught=_unread(rows) if ranked.untaught is None else ranked.untaught,
    )


def _no_hits(queries: int, k: int, device: torch.device) -> Hits:
    blank = torch.full((queries, k), -torch.inf, device=device)
    rows = torch.full((queries, k), -1, dtype=torch.int64, device=device)
    by_embedding = torch.zeros_like(rows, dtype=torch.bool)
    return Hits(rows, blank, blank, blank, blank, by_embedding, _unread(rows))


def _unread(values: Tensor) -> Tensor:
    """Return what ``untaught`` is of queries (Q, …) whose labels nobody reads: (Q,)."""
    return torch.full((len(values),), -torch.inf, device=values.device)
