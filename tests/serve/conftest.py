"""A service on loopback over an index of forty small images."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import polars as pl
import pytest
import uvicorn

from irgen.index.index import Index
from irgen.releases import own_index
from irgen.search.calibration import Calibration
from irgen.serve.access.slow_clients import HastyProtocol
from irgen.serve.app import create_app
from irgen.serve.candidate import Candidate
from irgen.serve.champion import Champion
from irgen.serve.measurements import Measurements
from irgen.serve.refresh import Refresh
from irgen.serve.service import Limits, Service

from ..small_index import CALIBRATION, NAMES
from ..waiting import wait_until

WAIT_SECONDS = 60


@pytest.fixture(scope="session")
def make_project(make_index: Callable, png: Callable) -> Callable[..., Path]:
    """Make a project whose index holds some of the images, and their files."""

    def make(
        root: Path, numbers: Iterable[int] = range(40), calibration: Calibration = CALIBRATION
    ) -> Path:
        names, contents = [NAMES[n] for n in numbers], [png(n) for n in numbers]
        for name, content in zip(names, contents, strict=True):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        items = pl.DataFrame(
            {
                "id": names,
                "path": names,
                "label": [name.split("/")[0] for name in names],
                "sha256": [hashlib.sha256(content).hexdigest() for content in contents],
                "price": [float("nan") if n == 3 else float(n) for n in range(len(names))],
            }
        )
        make_index(root / "data" / "index", contents, items, calibration)
        return root

    return make


@dataclass
class Running:
    """A service that answers at ``url``, of the project at ``root``."""

    url: str
    root: Path
    service: Service

    def get(self, path: str, **request) -> httpx.Response:
        return httpx.get(self.url + path, timeout=WAIT_SECONDS, **request)

    def post(self, path: str, **request) -> httpx.Response:
        return httpx.post(self.url + path, timeout=WAIT_SECONDS, **request)


@pytest.fixture(scope="session")
def run_service() -> Callable[..., Iterator[Running]]:
    """Run a service in a thread until its iterator is closed."""

    def run(
        root: Path,
        locate: Callable[[], Path] | None = None,
        open_writer: Callable[[float], Index] | None = None,
        refresh: Refresh | None = None,
        try_out: Callable[[Measurements], Candidate] | None = None,
        **limits: float,
    ) -> Iterator[Running]:
        champion = Champion(locate or (lambda: root / "data" / "index"), "cpu")
        service = Service(
            root,
            champion,
            Limits(**limits),
            decoders=1,
            open_writer=open_writer,
            refresh=refresh,
            try_out=try_out,
        )
        config = uvicorn.Config(
            create_app(service),
            http=HastyProtocol,
            port=0,
            log_level="warning",
            access_log=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", root, service)
        server.should_exit = True
        thread.join(WAIT_SECONDS)

    return run


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory, make_project: Callable, run_service: Callable
) -> Iterator[Running]:
    """Yield a read-only service for all tests together."""
    runs = run_service(make_project(tmp_path_factory.mktemp("served")))
    running = next(runs)
    wait_until(lambda: running.get("/readyz").status_code == 200)
    yield running
    next(runs, None)


@pytest.fixture(scope="session")
def running_with_words(captioned: Path, run_service: Callable) -> Iterator[Running]:
    """Yield a read-only service over pictures with captions, whose index has a text encoder."""
    runs = run_service(captioned)
    running = next(runs)
    wait_until(lambda: running.get("/readyz").status_code == 200)
    yield running
    next(runs, None)


@dataclass
class Started:
    """A service in a process of its own, started by ``irgen serve``."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def get(self, path: str, **request) -> httpx.Response:
        return httpx.get(self.url + path, timeout=WAIT_SECONDS, **request)

    def post(self, path: str, **request) -> httpx.Response:
        return httpx.post(self.url + path, timeout=WAIT_SECONDS, **request)

    def stop(self) -> int:
        """End it as systemd does; return its exit status."""
        self.process.terminate()
        return self.process.wait(WAIT_SECONDS)


def start_service(root: Path, log: Path, *options: str) -> Started:
    """Start ``irgen serve`` with options over a project, at a free port. The caller stops it."""
    command = [sys.executable, "-m", "irgen", "serve", "--port", "0", "--root", str(root)]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=file, text=True, cwd=root
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("irgen: "), line + log.read_text()
    return Started(line.split()[1], process, log)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Start services, and stop them at the end: see ``start_service``."""
    started: list[Started] = []

    def start(root: Path, *options: str) -> Started:
        log = tmp_path / f"serve-{len(started)}.log"
        started.append(start_service(root, log, *options))
        return started[-1]

    yield start
    for service in started:
        service.process.terminate()
    for service in started:
        try:
            service.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            service.process.kill()


@contextmanager
def serve_writable(run_service: Callable, root: Path, **limits: float) -> Iterator[Running]:
    """Run a service that may change the index of the project at ``root``."""
    runs = run_service(
        root,
        lambda: own_index.default_folder(root),
        lambda wait: own_index.open_writer(root, wait=wait),
        **limits,
    )
    running = next(runs)
    wait_until(lambda: running.get("/readyz").status_code == 200)
    yield running
    next(runs, None)


@pytest.fixture
def writable(tmp_path: Path, make_project: Callable, run_service: Callable) -> Iterator[Running]:
    """Yield a service that may change the index of its project."""
    with serve_writable(run_service, make_project(tmp_path)) as running:
        yield running
