"""Try another index on live searches, before it is released.

With a *share*, it answers that part of the searches; the answer names the index. With a *shadow*,
it is asked beside the champion, in the background: nobody sees its answers, only how they differ.
If the candidate fails, the champion answers.
"""

import asyncio
import logging
import uuid
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from irgen.errors import ReleaseError
from irgen.releases import live, store
from irgen.releases.live import Sums
from irgen.serve.champion import Champion, Served
from irgen.serve.errors import OverloadedError
from irgen.serve.measurements import Measurements
from irgen.serve.query import Hit, QueryInput, SearchResults

log = logging.getLogger("irgen.serve")
Ask = Callable[[Served], Awaitable[SearchResults]]
LATEST = "latest"
COMPARED_HITS = 10


class Candidate:
    """Index that ``follower`` follows, tried on searches. ``share``: of them that it answers.
    ``is_shadow``: it is asked beside the champion, one search at a time."""

    def __init__(
        self,
        root: Path,
        follower: Champion,
        measurements: Measurements,
        *,
        share: float,
        is_shadow: bool,
    ) -> None:
        self._root, self._follower, self._measurements = root, follower, measurements
        self._share, self._is_shadow = share, is_shadow
        self._sums, self._written = Sums(), Sums()
        self._index, self._process = "", uuid.uuid4().hex[:8]
        self._comparing: asyncio.Task[None] | None = None

    def look(self) -> bool:
        """Open the candidate if it is another one; note the figures. Return whether it can be
        opened."""
        is_swapped, sums = self._follower.look(), self._sums
        if sums != self._written:
            live.write(self._root, self._index, self._process, sums)
            self._written = sums
        if is_swapped:
            served = self._follower.require()
            self._index = live.identify(Path(served.state[0]))
            self._sums = self._written = Sums()
        return self._follower.error is None

    async def search(
        self,
        champion: Served,
        inputs: Sequence[QueryInput],
        ask: Ask,
    ) -> SearchResults:
        """Return the results of ``ask`` from the index whose turn it is. Equal first ``inputs``
        have the same turn, so that the next page is of the same index. Ids that the candidate does
        not have are searched with the champion: to lack them is no failure."""
        other = self._follower.served
        if other is None or other.state == champion.state or not _has_ids(other, inputs):
            return await ask(champion)
        if _draw(inputs) < self._share:
            return await self._answer(champion, other, ask)
        results = await ask(champion)
        if self._is_shadow and (self._comparing is None or self._comparing.done()):
            self._comparing = asyncio.create_task(self._compare(other, ask, results))
        return results

    async def _answer(self, champion: Served, other: Served, ask: Ask) -> SearchResults:
        try:
            results = await ask(other)
        except (OverloadedError, TimeoutError):
            raise
        except Exception as error:
            results = await ask(champion)  # if that fails, too, the request is wrong
            self._count_failure(error)
            return results
        self._count("answered", Sums(answered=1))
        return results

    async def _compare(self, other: Served, ask: Ask, expected: SearchResults) -> None:
        try:
            results = await ask(other)
        except (OverloadedError, TimeoutError):
            return
        except Exception as error:
            self._count_failure(error)
            return
        overlap = compute_overlap(results.hits, expected.hits)
        seconds, before = results.timings[0].worked, expected.timings[0].worked
        self._measurements.candidate_overlap.observe(overlap)
        self._measurements.candidate_seconds.labels("candidate").observe(seconds)
        self._measurements.candidate_seconds.labels("champion").observe(before)
        sums = Sums(compared=1, overlap=overlap, seconds=seconds, champion_seconds=before)
        self._count("compared", sums)

    def _count_failure(self, error: Exception) -> None:
        log.error("the candidate failed", exc_info=error)
        self._count("failed", Sums(failed=1))

    def _count(self, outcome: str, sums: Sums) -> None:
        self._sums += sums
        self._measurements.candidate_searches.labels(outcome).inc()


def compute_overlap(first: Sequence[Sequence[Hit]], second: Sequence[Sequence[Hit]]) -> float:
    """Return the mean, over queries, of the share of the first ten hits that both have; 1 where
    neither has any."""
    shares = []
    for pair in zip(first, second, strict=True):
        ids, other_ids = ({hit.id for hit in hits[:COMPARED_HITS]} for hits in pair)
        most = max(len(ids), len(other_ids))
        shares.append(len(ids & other_ids) / most if most else 1.0)
    return sum(shares) / len(shares)


def locate(root: Path, name: str) -> Path:
    """Return the folder of the candidate: ``name``, or the newest release that was not served, for
    LATEST. Raise ReleaseError if there is none."""
    if name != LATEST:
        return Path(name)
    releases = store.path_in(root)
    for release in store.list_releases(releases):
        if release.state in ("candidate", "rejected"):
            return releases / release.name
    raise ReleaseError(f"no release in {releases} waits to be served: name a folder")


def _has_ids(served: Served, inputs: Sequence[QueryInput]) -> bool:
    """Tell whether an index has all ids among ``inputs``."""
    names = [value.id for value in inputs if value.id is not None]
    return not names or bool((served.index.view.find(names) >= 0).all())


def _draw(inputs: Sequence[QueryInput]) -> float:
    """Return a number from 0 to 1 that depends on the first input alone."""
    first = inputs[0]
    content = (first.id or first.text or "").encode() if first.image is None else first.image
    return zlib.crc32(content) / 2**32
