"""The search of an index: beams written by the retriever, the images it cannot know reached by
their embeddings, all ordered and cut at k."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.errors import IndexingError
from irgen.search import beam, rank
from irgen.search.codebooks import Nearing
from irgen.search.decoder import Decoder, Kinds
from irgen.search.rank import Candidates
from irgen.search.snapshot import Snapshot

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a search looks.

    ``beams`` W and ``candidates`` are independent: of the images under the W best identifiers at
    most that many are gathered. ``fresh_beams``: beams that lead the query's embedding to images
    the retriever was not trained on (0: only what the retriever writes counts). ``rerank`` orders
    all candidates by cosine and, with the weight ``fuse``, by their first entry (``rank.fused``):
    by how likely the retriever is to write it, or with ``fuse_by`` label by how likely the query
    carries its label, as the tokenizer's classifier reads the query, or with both by the mean of
    that and of what the retriever writes (``Kinds``; where the decoder has none, as by entry).
    Without ``rerank`` they stand in the order in which the retriever writes them, by the
    probability of the whole identifier, with ``order_by`` entry of its first entry alone, or with
    label of all first entries that stand for its label, those of one by cosine, and ``fresh_beams``
    plays no part.
    ``distinct`` hides an image whose cosine with a better one is at least that. ``min_score`` drops
    hits whose score is lower, ``min_cosine`` those whose cosine is. ``Index`` turns two more into
    what the engine is given: ``min_probability`` drops hits less likely than that to have the
    query's label, ``allow`` (a polars expression over id and metadata, or a collection of ids)
    lets a search find some images only.
    Without the ``trie`` the retriever writes what it likes, and identifiers that do not exist find
    nothing: what the trie is compared with.
    """

    beams: int = 30
    candidates: int = 100
    fresh_beams: int = 30
    rerank: bool = True
    fuse: float = 0.0
    fuse_by: Literal["entry", "label", "both"] = "entry"
    order_by: Literal["identifier", "entry", "label"] = "identifier"
    distinct: float | None = None
    min_score: float | None = None
    min_cosine: float | None = None
    min_probability: float | None = None
    allow: "pl.Expr | Collection[str] | None" = None
    trie: bool = True

    def __post_init__(self) -> None:
        for name, least in (("beams", 1), ("candidates", 1), ("fresh_beams", 0)):
            if (value := getattr(self, name)) < least:
                raise IndexingError(f"{name}: {value} is too few; allowed: {least} or more")
        for name, least in (("distinct", -1), ("min_probability", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= 1:
                raise IndexingError(f"{name}: {value} is not allowed; allowed: {least} to 1")


@dataclass(frozen=True)
class Read:
    """What the models made of a batch of query images: ``summary`` (Q, S), ``tokens`` (Q, P, T) and
    the unit ``embedding`` (Q, D), all float32."""

    summary: Tensor
    tokens: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class Hits:
    """The best k images of each query, best first; all (Q, k).

    ``rows`` int64, −1 where there are fewer than k. float32, −inf where there are fewer: ``scores``
    is what they are ordered by, the fused score or without re-ranking the ``log_probability`` of
    the identifier under the retriever, or that of its first entry or label; ``cosine`` is that of
    the tuned embeddings; ``share`` is the logarithm of the identifier's probability among those
    that take part in the search. Both logarithms are −inf too for an image that the retriever did
    not write; ``dense`` bool says which these are.
    """

    rows: Tensor
    scores: Tensor
    cosine: Tensor
    log_probability: Tensor
    share: Tensor
    dense: Tensor


@torch.inference_mode()
def search(decoder: Decoder, read: Read, snapshot: Snapshot, k: int, options: Options) -> Hits:
    """The k best images of ``snapshot`` for each query."""
    parts, limit = snapshot.parts(fresh=False), max(k, options.candidates)
    queries = len(read.embedding)
    if not parts:
        return _none(queries, k, read.embedding.device)
    writing = decoder.read(read.summary, read.tokens)
    write = beam.search if options.trie else beam.freely
    beams = write(writing, [part for _, part in parts], options.beams)
    found = rank.gather(snapshot, parts, beams, limit)
    if options.rerank and options.fresh_beams:
        near = _near(read.embedding, snapshot, limit, options.fresh_beams, fresh=True)
        found = found if near is None else found.along(near)
    opening, kinds = beams.opening, decoder.kinds
    if kinds is not None:
        opening = _by_label(kinds, read.embedding, opening, options)
    return _ranked(found, read.embedding, snapshot, k, (options, opening))


def _by_label(kinds: Kinds, embeddings: Tensor, opening: Tensor, options: Options) -> Tensor:
    """What the options go by of first entries: ``opening`` as it is, or the logarithm of the
    probability that queries carry their label (Q, L)."""
    by = options.fuse_by if options.rerank else options.order_by
    if by == "both":
        read, written = kinds.alike(embeddings), kinds.written(opening)
        return torch.logaddexp(read, written) - math.log(2)
    if by == "label":
        return kinds.alike(embeddings) if options.rerank else kinds.written(opening)
    return opening


@torch.inference_mode()
def search_embeddings(
    embeddings: Tensor,
    snapshot: Snapshot,
    k: int,
    options: Options,
    but: Tensor | None = None,
) -> Hits:
    """The k best images for unit embeddings (Q, D), without the retriever: ``options.beams`` beams
    of the codes nearest to each embedding, ordered by cosine. ``but`` (Q,) int64: a row that is no
    answer to each query, such as the query itself."""
    limit = max(k, options.candidates) + (but is not None)
    found = _near(embeddings, snapshot, limit, options.beams, fresh=False)
    if found is None:
        return _none(len(embeddings), k, embeddings.device)
    if but is not None:
        found = found.only(found.rows != but[:, None])
    return _ranked(found, embeddings, snapshot, k, (replace(options, rerank=True), None))


def _near(
    embeddings: Tensor, snapshot: Snapshot, limit: int, width: int, *, fresh: bool
) -> Candidates | None:
    """Images under the codes nearest to embeddings (Q, D); None where no row takes part."""
    parts = snapshot.parts(fresh)
    if not parts:
        return None
    nearing = Nearing.of(embeddings, snapshot.codebooks)
    beams = beam.search(nearing, [part for _, part in parts], width)
    return rank.gather(snapshot, parts, beams, limit).reached()


def _ranked(
    found: Candidates,
    embeddings: Tensor,
    snapshot: Snapshot,
    k: int,
    how: tuple[Options, Tensor | None],
) -> Hits:
    """Orders, filters and cuts. ``how`` = (options, what first entries say, where the retriever
    was asked)."""
    options, opening = how
    cosines = rank.similarity(found.rows, embeddings, snapshot)
    if options.rerank:
        scores = cosines
        if opening is not None:
            scores = rank.fused(found.rows, cosines, opening, snapshot, options.fuse)
        order = rank.by_score(found, scores)
    else:
        scores = found.scores
        if options.order_by != "identifier" and opening is not None:
            scores = rank.opened(found.rows, opening, snapshot)
        order = rank.by_code(found, scores, cosines)
    rows = found.rows.gather(1, order)
    kept = rows >= 0
    if options.distinct is not None:
        kept &= rank.distinct(rows, snapshot, options.distinct)
    if options.min_score is not None:
        kept &= scores.gather(1, order) >= options.min_score
    if options.min_cosine is not None:
        kept &= cosines.gather(1, order) >= options.min_cosine
    places = rank.compress(kept)[:, :k]
    order, kept = order.gather(1, places), kept.gather(1, places)
    missing = k - order.shape[1]

    def column(values: Tensor, blank: float) -> Tensor:
        shown = values.gather(1, order).masked_fill(~kept, blank)
        return F.pad(shown, (0, missing), value=blank)

    return Hits(
        rows=column(found.rows, -1),
        scores=column(scores, -torch.inf).clamp_max(1 if options.rerank else 0),
        cosine=column(cosines, -torch.inf).clamp_max(1),  # whatever the rounding
        log_probability=column(found.scores, -torch.inf),
        share=column(found.shares, -torch.inf),
        dense=column(found.dense, False),
    )


def _none(queries: int, k: int, device: torch.device) -> Hits:
    blank = torch.full((queries, k), -torch.inf, device=device)
    rows = torch.full((queries, k), -1, dtype=torch.int64, device=device)
    return Hits(rows, blank, blank, blank, blank, torch.zeros_like(rows, dtype=torch.bool))
