"""Run the service in a process of its own; read its metrics, its log and its memory."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

START_SECONDS = 180


@dataclass(frozen=True)
class Running:
    """Hold a service that answers at ``url``. ``log``: its requests, one JSON object a line.
    ``seconds`` from the start of its process until it was ready."""

    process: psutil.Popen
    url: str
    log: Path
    seconds: float

    def measure_memory(self) -> int:
        """Return the bytes of the service and its decoders; what they share counts once (PSS)."""
        total = 0
        for process in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total

    def read_metrics(self) -> dict[str, float]:
        """Return the figures of ``/metrics`` that have no labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return {sample.name: sample.value for sample in samples if not sample.labels}

    def read_times(self) -> dict[str, float]:
        """Return the milliseconds of each request by its id, as the service logged them."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines())
        return {line["request"]: line["milliseconds"] for line in lines if "milliseconds" in line}


@contextmanager
def serve(root: Path, *options: str) -> Iterator[Running]:
    """Run ``irgen serve`` with these options over the project at ``root`` while the block runs."""
    command = [sys.executable, "-m", "irgen", "serve", "--root", str(root), "--port", "0", *options]
    with tempfile.TemporaryDirectory() as folder:
        log, started = Path(folder) / "log", time.perf_counter()
        with log.open("w") as file:
            process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
        try:
            url = process.stdout.readline().split()[1]  # "irgen: URL (Ctrl-C ends it)"
            _wait_until_ready(url)
            yield Running(process, url, log, time.perf_counter() - started)
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=START_SECONDS).is_success:
                return
        time.sleep(0.05)
    raise SystemExit(f"the service was not ready within {START_SECONDS} s")
