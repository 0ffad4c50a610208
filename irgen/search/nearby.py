"""Gather images around a query's embedding, without the retriever: those under its own code, its
copies, its nearest images."""

from torch import Tensor

from irgen.search import beam, rank
from irgen.search.beam import Beams
from irgen.search.codebook_scorer import CodebookScorer
from irgen.search.rank import Candidates
from irgen.search.snapshot import LivePart, Snapshot

# From this cosine an image counts as a copy of the query: docs/reference/metrics.md says why.
COPY_COSINE = 0.999
COPY_BEAMS = 8  # codes nearest to the query's embedding under which copies are looked for
VOTER_BEAMS = 32  # and the nearest images, which vote for their label


def gather(
    embeddings: Tensor, snapshot: Snapshot, limit: int, width: int, *, fresh: bool
) -> Candidates | None:
    """Gather at most ``limit`` images under the ``width`` codes nearest to each of the embeddings
    (Q, D); ``fresh``: only fresh rows. None if no row takes part."""
    parts = snapshot.live_parts(fresh)
    if not parts:
        return None
    beams = find_nearest_codes(embeddings, snapshot, parts, width)
    return rank.gather(snapshot, parts, beams, limit).mark_by_embedding()


def gather_own_and_near(
    embeddings: Tensor, snapshot: Snapshot, limit: int, voters: int
) -> tuple[Candidates, Candidates]:
    """Gather images under the own codes of embeddings (Q, D), the nearest if over ``limit``; and
    images under the nearest other codes: the ``voters`` nearest, and all copies, since another
    precision or compression may give a copy another code. Some row must take part."""
    parts, width = snapshot.live_parts(fresh=False), VOTER_BEAMS if voters else COPY_BEAMS
    beams = find_nearest_codes(embeddings, snapshot, parts, 1 + width)
    own_beam, others = beams.select(slice(1)), beams.select(slice(1, None))
    own = rank.gather(snapshot, parts, own_beam, len(snapshot)).mark_by_embedding()
    if own.rows.shape[1] > limit:
        cosines = rank.cosine(own.rows, embeddings, snapshot)
        own = own.take(rank.order_by_score(own, cosines)[:, :limit])
    near = rank.gather(snapshot, parts, others, limit).mark_by_embedding()
    return own, _keep_nearest(near, rank.cosine(near.rows, embeddings, snapshot), voters)


def _keep_nearest(near: Candidates, cosines: Tensor, count: int) -> Candidates:
    """Keep the ``count`` candidates of the largest cosines (Q, C), and all copies."""
    kept = cosines >= COPY_COSINE
    count = min(count, cosines.shape[1])
    if count:
        kept |= cosines >= cosines.topk(count, dim=1).values[:, -1:]
    return near.keep(kept).take(rank.order_kept_first(kept)[:, : int(kept.sum(1).max())])


def find_nearest_codes(
    embeddings: Tensor, snapshot: Snapshot, parts: list[LivePart], width: int
) -> Beams:
    """Return the own codes of embeddings (Q, D), then the ``width`` − 1 nearest others. Where no
    live image has the own code, it is the nearest that one beam finds."""
    scorer = CodebookScorer.start(embeddings, snapshot.codebooks)
    return beam.nearest_search(scorer, [part.live for part in parts], width)
