"""Time searches that are compared directly, interleaved on one machine: generative search beside
brute-force search, over a small and a large index, and beside the published algorithm."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from irgen.models.decoder import IdentifierDecoder
from irgen.search.brute_force import brute_force_search
from irgen.search.decoder import Decoder
from irgen.search.snapshot import Snapshot
from speed import generative, published
from speed.faiss_indexes import FaissIndex, Rivals
from speed.generative import QueryPool, Search
from speed.stopwatch import Repeats, TimedCall, time_interleaved
from speed.synthetic import Database

BEAMS = 10
PUBLISHED_BEAMS = 30
Race = dict[str, float]  # median ms a query, by name of the runner
Runners = dict[str, tuple[TimedCall, int]]  # a call, and the queries it answers


@dataclass(frozen=True)
class DecoderSet:
    """Hold the decoder in each precision, by name, and the queries."""

    decoders: dict[str, Decoder]
    pool: QueryPool

    def make_searches(self, snapshot: Snapshot, batch: int, beams: int) -> dict[str, Search]:
        """Return a search of the index for each precision."""
        return {
            name: Search(decoder, snapshot, self.pool, batch, beams)
            for name, decoder in self.decoders.items()
        }


def _run(runners: Runners, repeats: Repeats) -> Race:
    """Time all runners, interleaved."""
    times = time_interleaved([call for call, _ in runners.values()], repeats)
    return {
        name: measured.milliseconds(queries)["p50"]
        for (name, (_, queries)), measured in zip(runners.items(), times, strict=True)
    }


def race_neighbours(
    decoder_set: DecoderSet,
    snapshot: Snapshot,
    rivals: Rivals,
    batches: Sequence[int],
    repeats: Repeats,
) -> dict[str, Race]:
    """Compare generative search with HNSW and with the brute-force searches of faiss and of irgen,
    over the same vectors in float32; by batch size."""
    vectors, pool = snapshot.segments[0].embeddings.float(), decoder_set.pool
    races = {}
    for batch in batches:

        def search_exactly(number: int, batch: int = batch) -> object:
            return brute_force_search(pool.batch(number, batch).embedding, vectors, generative.K)

        searches = decoder_set.make_searches(snapshot, batch, BEAMS)
        runners: Runners = {name: (search, batch) for name, search in searches.items()}
        runners["faiss"] = (make_faiss_call(rivals.flat, pool, batch), batch)
        runners["hnsw"] = (make_faiss_call(rivals.hnsw, pool, batch), batch)
        runners["irgen"] = (search_exactly, batch)
        races[str(batch)] = _run(runners, pause_between(repeats))
    return races


def make_faiss_call(index: FaissIndex, pool: QueryPool, batch: int) -> TimedCall:
    """Return a call that searches the index with a batch of the pool."""

    def call(number: int) -> object:
        return index.search(pool.batch(number, batch).embedding.numpy(), generative.K)

    return call


def race_sizes(
    decoder_set: DecoderSet, small: Snapshot, large: Snapshot, batch: int, repeats: Repeats
) -> dict[str, Race]:
    """Compare the same search over a small and a large index, for each precision."""
    in_small, in_large = (
        decoder_set.make_searches(snapshot, batch, BEAMS) for snapshot in (small, large)
    )
    return {
        name: _run({"small": (in_small[name], batch), "large": (in_large[name], batch)}, repeats)
        for name in in_small
    }


@dataclass(frozen=True)
class Published:
    """Hold the published algorithm: its decoder, its trie, and the codes of all images."""

    model: IdentifierDecoder
    trie: published.Node
    codes: Tensor  # (N, M) int64, as in the published code

    @classmethod
    def build(cls, model: IdentifierDecoder, database: Database) -> "Published":
        """Build the trie of a database."""
        return cls(model, published.build(database.codes), database.codes.long())

    def decode(self, pool: QueryPool, beams: int) -> TimedCall:
        """Return a call that predicts the codes of one query."""

        def call(number: int) -> published.Beams:
            features = pool.batch(number, 1)
            return published.search(self.model, features.summary, features.tokens, self.trie, beams)

        return call

    def look_up(self, pool: QueryPool, beams: int) -> TimedCall:
        """Return a call that looks up the images of codes that are predicted already."""
        predicted = self.decode(pool, beams)(0)
        assert isinstance(predicted, published.Beams)
        return lambda number: published.look_up_images(predicted, self.codes, generative.K)


def race_published(
    decoder_set: DecoderSet,
    snapshot: Snapshot,
    rival: Published,
    batches: Sequence[int],
    repeats: Repeats,
) -> Race:
    """Compare with the published algorithm at its own beam width. It answers one query at a time;
    decoding the codes and looking up their images are timed apart."""
    runners: Runners = {
        "writing": (rival.decode(decoder_set.pool, PUBLISHED_BEAMS), 1),
        "looking up": (rival.look_up(decoder_set.pool, PUBLISHED_BEAMS), 1),
    }
    for batch in batches:
        for name, search in decoder_set.make_searches(snapshot, batch, PUBLISHED_BEAMS).items():
            runners[f"{name}/{batch}"] = (search, batch)
    return _run(runners, repeats)


def pause_between(repeats: Repeats) -> Repeats:
    """Return the same repeats with a pause before each call: meanwhile the threads of the other
    library stop busy-waiting on the processor."""
    return replace(repeats, pause=0.01)
