"""Upload damaged and hostile files to a service: does any of them stop it, or make it grow?

    nice -n 10 python benchmarks/hostile_uploads.py --root . --files 10000
    python benchmarks/hostile_uploads.py --server http://127.0.0.1:8080 --files 300

The files are those of ``mutations.py`` and, every 20th, of ``hostile_files.py``, under hostile
names, by every route that takes a file. With ``--write`` they are also added to the index: name a
copy of a project. Meanwhile another client searches. Every answer must be a result or a reason of
status 4xx. Prints and writes to ``benchmarks/results/hostile-uploads.json``:
answers by status, failures, the other client's slowest answer, and the memory of the service (with
``--root``, which starts one over a built project) after a fifth of the files and at the end.
"""

import argparse
import base64
import json
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
from hostile_files import KINDS, NAMES, make_attacks
from mutations import make_files, mutate
from serving.running import serve

from irgen.files.records import write_json

RESULTS = Path(__file__).parent / "results" / "hostile-uploads.json"
CLIENTS, EVERY = 4, 20
PATIENCE = 120  # seconds for an answer
MOST_GROWTH = 1.05


class Sender:
    """Send files by number, and count the answers."""

    def __init__(self, url: str, *, write: bool) -> None:
        self._url = url
        self._routes = [self._upload, self._search, self._use_page] + [self._add] * write
        self._files, self._attacks = make_files(), make_attacks()
        self.statuses: Counter[str] = Counter()
        self.failures: list[str] = []
        self._local = threading.local()

    def send(self, number: int) -> None:
        """Send a file by the route that is its turn."""
        name, content = self._choose(number)
        turn = number // EVERY if number % EVERY == 0 else number
        send = self._routes[turn % len(self._routes)]
        try:
            while (answer := send(number, content)).status_code == 429:
                time.sleep(float(answer.headers["retry-after"]))
        except httpx.HTTPError as error:
            self.failures.append(f"file {number} ({name}): {error!r}")
            return
        self.statuses[str(answer.status_code)] += 1
        if answer.status_code >= 500 or "x-injected" in answer.headers:
            self.failures.append(
                f"file {number} ({name}): {answer.status_code} {answer.text[:200]}"
            )

    def _choose(self, number: int) -> tuple[str, bytes]:
        if number % EVERY:
            return "mutated", mutate(self._files, number)
        names = list(self._attacks)
        name = names[number // EVERY % len(names)]
        return name, self._attacks[name]

    @property
    def _client(self) -> httpx.Client:
        """Return the connection of this thread."""
        if not hasattr(self._local, "client"):
            self._local.client = httpx.Client(base_url=self._url, timeout=PATIENCE)
        return self._local.client

    def _upload(self, number: int, content: bytes) -> httpx.Response:
        file = (NAMES[number % len(NAMES)], content, KINDS[number % len(KINDS)])
        return self._client.post("/v1/search/upload", files=[("images", file)])

    def _add(self, number: int, content: bytes) -> httpx.Response:
        file = (NAMES[number % len(NAMES)] or "a", content, KINDS[number % len(KINDS)])
        return self._client.post("/v1/items?upsert=true", files=[("images", file)])

    def _search(self, number: int, content: bytes) -> httpx.Response:
        queries = [{"image": base64.b64encode(content).decode()}]
        return self._client.post("/v1/search", json={"queries": queries})

    def _use_page(self, number: int, content: bytes) -> httpx.Response:
        file = (NAMES[number % len(NAMES)] or "a", content, KINDS[number % len(KINDS)])
        sent = self._client.post("/search", files={"image": file})
        if sent.status_code != 303 or "?" not in sent.headers["location"]:
            return sent
        small = self._client.get("/upload" + sent.headers["location"].removeprefix("/"))
        return self._client.get(sent.headers["location"]) if small.status_code < 500 else small


@contextmanager
def search_meanwhile(url: str, failures: list[str]) -> Iterator[list[float]]:
    """Search by an image of the index, again and again; give the seconds that each answer took."""
    seconds: list[float] = []
    ended = threading.Event()

    def search() -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            name = client.get("/v1/items", params={"limit": 1}).json()["items"][0]["id"]
            while not ended.wait(0.2):
                started = time.perf_counter()
                answer = client.post("/v1/search", json={"queries": [{"id": name}]})
                seconds.append(time.perf_counter() - started)
                if answer.status_code not in (200, 429):
                    failures.append(f"the other client: {answer.status_code} {answer.text[:200]}")

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(search)
        try:
            yield seconds
        finally:
            ended.set()
            future.result()


def measure_memory(service: psutil.Process) -> tuple[int, int]:
    """Return the bytes of memory of the service's process, and of those that decode."""
    below = 0
    for child in service.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            below += child.memory_info().rss
    return service.memory_info().rss, below


def run(
    url: str, files: int, measure: Callable[[], tuple[int, int]] | None, *, write: bool
) -> dict:
    """Send the files and return the results."""
    sender, memory = Sender(url, write=write), []
    with search_meanwhile(url, sender.failures) as seconds, ThreadPoolExecutor(CLIENTS) as pool:
        for number, _ in enumerate(pool.map(sender.send, range(files))):
            if measure is not None and number % max(1, files // 100) == 0:
                memory.append(measure())
    results = {
        "files": files,
        "statuses": dict(sorted(sender.statuses.items())),
        "failures": sender.failures,
        "searches_meanwhile": len(seconds),
        "median_seconds": round(statistics.median(seconds), 3),
        "slowest_seconds": round(max(seconds), 3),
    }
    return results | (describe_memory(memory) if memory else {})


def describe_memory(memory: list[tuple[int, int]]) -> dict:
    """Return the memory after a fifth of the files and at the end, medians of ten samples, and how
    many times as much it has become."""
    main = [sample[0] for sample in memory]
    tenth = max(1, len(main) // 10)
    early, late = (
        statistics.median(part) for part in (main[2 * tenth : 3 * tenth] or main, main[-tenth:])
    )
    return {
        "mb_early": round(early / 1e6),
        "mb_late": round(late / 1e6),
        "growth": round(late / early, 3),
        "mb_over_time": [round(size / 1e6) for size in main[::5]],
        "mb_decoders_most": round(max(sample[1] for sample in memory) / 1e6),
        "mb_decoders_late": round(memory[-1][1] / 1e6),
    }


def main() -> None:
    """Send the files, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--server", help="The address of a service that runs. Default: start one.")
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--write", action="store_true", help="Add the files to the index, too.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.server:
        results = run(options.server, options.files, None, write=options.write)
    else:
        with serve(options.root) as running:
            measure = partial(measure_memory, running.process)
            results = run(running.url, options.files, measure, write=options.write)
            assert running.process.poll() is None, "the service has ended"
    write_json(options.results, results)
    print(json.dumps(results, indent=1))
    sys.exit(bool(results["failures"]) or results.get("growth", 0) > MOST_GROWTH)


if __name__ == "__main__":
    main()
