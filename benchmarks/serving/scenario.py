"""Change releases and images while clients search."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from irgen.errors import ParamsError
from irgen.releases import own_index
from irgen.releases.rollback import roll_back
from irgen.releases.settings import ReleaseSettings
from serving.running import Running

WRITERS = 4  # clients that add images
BUSY = (429, 503)  # answers after which a client tries again
SWAP_SECONDS = 60  # until a new release must answer


def reset(root: Path) -> None:
    """Serve the first release, without images added by hand."""
    for folder in (own_index.path_in(root), root / "uploads"):
        shutil.rmtree(folder, ignore_errors=True)
    roll_back(root, _refuse_settings, 1)


def _refuse_settings() -> ReleaseSettings:
    raise ParamsError("neither bucket nor MLflow takes part")


def run(running: Running, root: Path, seconds: float, writes: int) -> dict[str, Any]:
    """Change the service while clients search for ``seconds``: serve release 2 after a fifth of the
    time, then add images, serve release 3, and go back to 2. Return the figures of each step."""
    steps: list[tuple[float, str, Callable[[], dict[str, float]]]] = [
        (0.2, "swap", lambda: serve_release(running, root, 2)),
        (0.35, "writes", lambda: write(running.url, root / "queries", writes)),
        (0.55, "swap with writes", lambda: serve_release(running, root, 3)),
        (0.75, "rollback", lambda: serve_release(running, root, None)),
    ]
    started, results = time.monotonic(), {}
    for share, name, act in steps:
        time.sleep(max(0.0, started + share * seconds - time.monotonic()))
        results[name] = act()
    return results


def serve_release(running: Running, root: Path, version: int | None) -> dict[str, float]:
    """Serve the release of this version, None: the one before. Return the seconds until it answers,
    and 1 failure if it does not within a minute."""
    swaps = running.read_metrics()["irgen_swaps_total"]
    roll_back(root, _refuse_settings, version)
    started, seconds = time.monotonic(), 0.0
    while is_late := running.read_metrics()["irgen_swaps_total"] == swaps:
        seconds = time.monotonic() - started
        if seconds > SWAP_SECONDS:
            break
        time.sleep(0.2)
    return {"seconds": seconds, "failures": int(is_late)}


def write(url: str, pictures: Path, count: int) -> dict[str, float]:
    """Add ``count`` images, one a request, by several clients. Return images a second, p50 and p99
    of a request in ms, and the number that failed."""
    contents = [path.read_bytes() for path in sorted(pictures.iterdir())]

    def add(number: int) -> tuple[float, bool]:
        files = {"images": (f"written/{number:06d}", contents[number % len(contents)])}
        add_started = time.perf_counter()
        is_added = _post_until_free(client, files)
        return time.perf_counter() - add_started, is_added

    started = time.perf_counter()
    with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(WRITERS) as pool:
        seconds, added = zip(*pool.map(add, range(count)), strict=True)
    milliseconds = 1000 * np.array(seconds)
    return {
        "rate": count / (time.perf_counter() - started),
        "p50": float(np.percentile(milliseconds, 50)),
        "p99": float(np.percentile(milliseconds, 99)),
        "failures": added.count(False),
    }


def _post_until_free(client: httpx.Client, files: dict[str, tuple[str, bytes]]) -> bool:
    """Send an addition, again while the service is busy; tell whether it was made."""
    while (answer := client.post("/v1/items", files=files)).status_code in BUSY:
        time.sleep(float(answer.headers.get("Retry-After", "1")))
    return answer.is_success
