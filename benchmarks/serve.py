"""Measure the service: its start, many clients, changes meanwhile, batches, and its own overhead.

    python benchmarks/made_up_index.py --like . --root /tmp/large --images 1000000
    python benchmarks/serve.py --root /tmp/large

``--root``: a project that ``made_up_index.py`` made; several for ``--start``. Clients search by the
images in its ``queries/``. Choose measurements; the default is all of them:

--start: seconds until the service is ready, its first search, and its memory
--load: clients search for five minutes while two releases are swapped, images are added, and a
    release is rolled back; the index and the uploads of the project are deleted before
--batching: requests a second with batches and without, in turns
--overhead: time of a request besides decoding, waiting and searching, one client alone

Writes ``benchmarks/results/serve.json`` and ``.md``, where measurements that were not repeated
stay, and prints the tables. Run it on a machine that does nothing else: the clients take their
share of the cores.
"""

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from serving import clients, report, scenario
from serving.running import Running, serve

from irgen.files.atomic import write_bytes
from irgen.files.records import read_json, write_json
from irgen.releases import own_index

STARTS, REQUESTS, WARMUPS = 3, 300, 30
SAMPLE_SECONDS = 2.0  # between looks at the memory


def measure_start(options: argparse.Namespace) -> list[dict[str, float]]:
    """Return for each project the seconds of the slowest of some starts and first searches, the
    memory after it, and the bytes of the index on the disk."""
    rows = []
    for root in options.root:
        ready, first, memory, images = [], [], [], 0
        for _ in range(STARTS):
            with serve(root) as running, httpx.Client(base_url=running.url, timeout=60) as client:
                ready.append(running.seconds)
                started = time.perf_counter()
                picture = next(iter((root / "queries").iterdir()))
                images = search_by_image(client, picture)["index"]["images"]
                first.append(time.perf_counter() - started)
                memory.append(running.measure_memory())
        files = (path for path in own_index.default_folder(root).rglob("*") if path.is_file())
        row = {"images": images, "disk": sum(path.stat().st_size for path in files)}
        row |= {"ready": max(ready), "first": max(first), "memory": max(memory)}
        rows.append(row)
    return rows


def search_by_image(client: httpx.Client, picture: Path) -> dict[str, Any]:
    """Search by one image file; return the answer with the id of the request."""
    files = {"images": picture.read_bytes()}
    answer = client.post("/v1/search/upload", params={"k": 10}, files=files).raise_for_status()
    return answer.json() | {"request": answer.headers["X-Request-Id"]}


def measure_load(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the clients, of the changes meanwhile, and of the memory."""
    root = options.root[0]
    scenario.reset(root)
    with serve(root) as running, ThreadPoolExecutor(2) as pool:
        searches = pool.submit(
            clients.search, running.url, root / "queries", options.users, options.seconds
        )
        changes = pool.submit(scenario.run, running, root, options.seconds, options.writes)
        samples = [running.measure_memory()]
        while not searches.done():
            time.sleep(SAMPLE_SECONDS)
            samples.append(running.measure_memory())
        return {
            "images": int(running.read_metrics()["irgen_index_images"]),
            "users": options.users,
            "seconds": options.seconds,
            "searches": searches.result(),
            "changes": changes.result(),
            "memory": summarise_memory(samples),
        }


def summarise_memory(samples: list[int]) -> dict[str, float]:
    """Return bytes before the first change and at the end (medians of a tenth of the time), and the
    most between."""
    tenth = max(1, len(samples) // 10)
    before, end = np.median(samples[tenth : 2 * tenth]), np.median(samples[-tenth:])
    return {"before": float(before), "end": float(end), "most": max(samples)}


def measure_batching(options: argparse.Namespace) -> list[dict[str, float]]:
    """Return the clients' figures without batches and with them, twice in turns."""
    root, rows = options.root[0], []
    for batch in (1, 32, 1, 32):
        with serve(root, "--batch", str(batch)) as running:
            pictures, seconds = root / "queries", options.seconds / 10
            clients.search(running.url, pictures, options.users, 3)  # until all is warm
            figures = clients.search(running.url, pictures, options.users, seconds)
        rows.append({"batch": batch, **figures})
    return rows


def measure_overhead(options: argparse.Namespace) -> dict[str, float]:
    """Return medians in ms of a request's parts, one client alone, and the 99th percentile of what
    is neither decoding nor waiting nor searching."""
    pictures = sorted((options.root[0] / "queries").iterdir())
    with serve(options.root[0]) as running:
        with httpx.Client(base_url=running.url, timeout=60) as client:
            answers = [
                search_by_image(client, pictures[number % len(pictures)])
                for number in range(WARMUPS + REQUESTS)
            ]
        return split_times(running, answers[WARMUPS:])


def split_times(running: Running, answers: list[dict[str, Any]]) -> dict[str, float]:
    """Return the parts of the requests' times: the service's log has the whole, the answers have
    the stages."""
    totals = running.read_times()
    whole = np.array([totals[answer["request"]] for answer in answers])
    stages = {
        name: np.array([answer["milliseconds"][name] for answer in answers])
        for name in ("decode", "queue", "search")
    }
    overhead = whole - sum(stages.values())
    medians = {name: float(np.median(values)) for name, values in stages.items()}
    return {
        "whole": float(np.median(whole)),
        **medians,
        "overhead": float(np.median(overhead)),
        "overhead/p99": float(np.percentile(overhead, 99)),
    }


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "start": measure_start,
    "overhead": measure_overhead,
    "batching": measure_batching,
    "load": measure_load,
}


def main() -> None:
    """Make the chosen measurements; write and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, nargs="+", required=True)
    for name in MEASUREMENTS:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300, help="of --load; --batching: a tenth")
    parser.add_argument("--writes", type=int, default=1000, help="images added in --load")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    chosen = [name for name in MEASUREMENTS if getattr(options, name)] or list(MEASUREMENTS)
    path = options.results / "serve.json"
    results = read_json(path) if path.exists() else {}
    for name in chosen:
        before = os.getloadavg()[0]
        measured = MEASUREMENTS[name](options)
        results[name] = {"measured": measured, **report.describe_machine(before)}
        write_json(path, results)
        text = report.format_page(results)
        write_bytes(options.results / "serve.md", text.encode())
    print(report.format_page({name: results[name] for name in chosen}))


if __name__ == "__main__":
    main()
