"""Time in turns, on one machine, what is compared directly: generative search beside brute force,
beside itself over a small index, beside the published algorithm."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from irgen.models.decoder import IdentifierDecoder
from irgen.search.brute_force import brute_force_search
from irgen.search.decoder import Decoder
from irgen.search.snapshot import Snapshot
from speed import ours, published
from speed.neighbours import Neighbours
from speed.ours import Pool, Search
from speed.stopwatch import Call, Patience, in_turns
from speed.synthetic import Database

BEAMS = 10
PUBLISHED_BEAMS = 30
Race = dict[str, float]  # ms a query, by who ran


@dataclass(frozen=True)
class Field:
    """What takes part: the decoder in every precision, and the queries."""

    decoders: dict[str, Decoder]
    pool: Pool

    def searches(self, held: Snapshot, batch: int, beams: int) -> dict[str, Search]:
        """Our search in every precision."""
        return {
            name: Search(decoder, held, self.pool, batch, beams)
            for name, decoder in self.decoders.items()
        }


def _run(runners: dict[str, tuple[Call, int]], patience: Patience) -> Race:
    """Medians of runners, each a call and how many queries it answers."""
    times = in_turns([call for call, _ in runners.values()], patience)
    return {
        name: found.milliseconds(queries)["p50"]
        for (name, (_, queries)), found in zip(runners.items(), times, strict=True)
    }


def against_scans(
    field: Field, held: Snapshot, exact: Neighbours, batch: int, patience: Patience
) -> Race:
    """Beside faiss's brute-force search and our own, of the same vectors in float32."""
    vectors = held.segments[0].embeddings.float()

    def ours_exact(number: int) -> object:
        return brute_force_search(field.pool.read(number, batch).embedding, vectors, ours.K)

    runners: dict[str, tuple[Call, int]] = {
        name: (search, batch) for name, search in field.searches(held, batch, BEAMS).items()
    }
    runners["faiss"] = (search_of(exact, field.pool, batch), batch)
    runners["irgen"] = (ours_exact, batch)
    return _run(runners, patience)


def search_of(index: Neighbours, pool: Pool, batch: int) -> Call:
    """Searches of a rival with batches of the pool."""

    def call(number: int) -> object:
        return index.search(pool.read(number, batch).embedding.numpy(), ours.K)

    return call


def over_sizes(
    field: Field, small: Snapshot, large: Snapshot, batch: int, patience: Patience
) -> dict[str, Race]:
    """Time the same search over a small and a large index, by precision."""
    smalls, larges = (field.searches(held, batch, BEAMS) for held in (small, large))
    return {
        name: _run({"small": (smalls[name], batch), "large": (larges[name], batch)}, patience)
        for name in smalls
    }


@dataclass(frozen=True)
class Published:
    """The published algorithm over a database, and the codes its images are looked up in."""

    model: IdentifierDecoder
    trie: published.Node
    codes: Tensor  # (N, M) int64, as published

    @classmethod
    def over(cls, model: IdentifierDecoder, database: Database) -> "Published":
        """Made ready to search."""
        return cls(model, published.build(database.codes), database.codes.long())

    def writing(self, pool: Pool, beams: int) -> Call:
        """Codes written for one image."""

        def call(number: int) -> published.Written:
            read = pool.read(number, 1)
            return published.search(self.model, read.summary, read.tokens, self.trie, beams)

        return call

    def looking_up(self, pool: Pool, beams: int) -> Call:
        """Images looked up for codes that are written already."""
        written = self.writing(pool, beams)(0)
        assert isinstance(written, published.Written)
        return lambda number: published.images(written, self.codes, ours.K)


def against_published(
    field: Field, held: Snapshot, rival: Published, batches: Sequence[int], patience: Patience
) -> Race:
    """Beside the published algorithm at its own width, which answers one query at a time: writing
    the codes, and looking up their images."""
    runners: dict[str, tuple[Call, int]] = {
        "writing": (rival.writing(field.pool, PUBLISHED_BEAMS), 1),
        "looking up": (rival.looking_up(field.pool, PUBLISHED_BEAMS), 1),
    }
    for batch in batches:
        for name, search in field.searches(held, batch, PUBLISHED_BEAMS).items():
            runners[f"{name}/{batch}"] = (search, batch)
    return _run(runners, patience)


def resting(patience: Patience) -> Patience:
    """The same with a rest between calls, in which another library's threads stop waiting for
    work on the processor."""
    return replace(patience, rest=0.01)
