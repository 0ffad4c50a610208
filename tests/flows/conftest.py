"""A real Prefect server on loopback, one a session, and small projects for flows to work on."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from .. import server_program

ROOT = Path(__file__).resolve().parents[2]
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "DVC_STUDIO_OFFLINE": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}


class PrefectServer:
    """A server with its services that a test may kill and start again; what it knows is kept, in
    ``database`` or else in SQLite."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.port = server_program.find_free_port()
        self.uri = f"http://127.0.0.1:{self.port}/api"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        sqlite = f"sqlite+aiosqlite:///{folder}/prefect.db"
        self.settings = QUIET | {
            "PREFECT_HOME": str(folder),
            "PREFECT_API_URL": self.uri,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database or sqlite,
        }

    def start(self) -> None:
        """Start the server and return when it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        environment = os.environ | self.settings
        self.process = server_program.start(command, self.folder / "log", environment)
        until(self.answers, "the Prefect server did not start", self.told)

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.told()
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
            return True
        return False

    def told(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def kill(self) -> None:
        """Kill the server as a power cut would."""
        if self.process is not None:
            server_program.kill(self.process)
            self.process = None

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Return the server's answer: to a POST if there is a body, else to a GET. Try again while
        the server is unavailable because its database is locked, on a slow machine for seconds."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.uri}{path}", data, headers, method=method)
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    content = answer.read()
                return json.loads(content) if content else None
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)


WAIT_SECONDS = 420.0  # a flow run takes one or two minutes on a machine of its own


def until(true: Callable[[], Any], failure: str, more: Callable[[], str] = str) -> Any:
    """Wait until ``true()`` returns something true, and return it; fail after WAIT_SECONDS."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(0.1)
    pytest.fail(f"{failure} (within {WAIT_SECONDS:g} s)\n{more()}")


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Prefect reads its settings when it is first imported, so they are made before any test is.
SERVER = PrefectServer(Path(tempfile.mkdtemp(prefix="prefect-")))
os.environ.update(SERVER.settings)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[PrefectServer]:
    """Start the session's server. Flows that run in the test process report to it too."""
    SERVER.start()
    yield SERVER
    SERVER.kill()
    shutil.rmtree(SERVER.folder, ignore_errors=True)


TOY = """
stages:
  first:
    cmd: python work.py first
    deps: [work.py, words.txt]
    outs: [data/first]
    meta: {prefect: {retries: 0, timeout_seconds: 60, tags: [quick]}}
  left:
    cmd: python work.py left
    deps: [work.py, data/first]
    outs: [data/left]
  right:
    cmd: python work.py right
    deps: [data/first]
    params: [toy.right]
    outs: [data/right]
    meta: {prefect: {retries: 1, retry_delay_seconds: 0, timeout_seconds: 30}}
  last:
    cmd: python work.py last
    deps: [data/left, data/right]
    outs: [data/last]
"""

WORK = """
import os, pathlib, subprocess, sys, time, yaml

name = sys.argv[1]
ran = pathlib.Path(".ran")
with ran.open("a") as file:
    file.write(name + "\\n")
fault = pathlib.Path(f"fault-{name}")
print(f"working on {name}")
if fault.exists():
    said = fault.read_text()
    if said == "sleep":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path("children").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    if said == "once":
        fault.unlink()
    sys.exit(f"irgen {name}: this is what went wrong ({said})")
words = pathlib.Path("words.txt").read_text()
value = yaml.safe_load(open("params.yaml"))["toy"]["right"] if name == "right" else ""
out = pathlib.Path("data") / name
out.parent.mkdir(exist_ok=True)
out.write_text(f"{name} {words} {value}")
"""


class Toy:
    """A project of four quick stages: first → left, right → last. ``ran()``: which did work."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dvc.yaml").write_text(textwrap.dedent(TOY))
        (root / "work.py").write_text(WORK)
        (root / "words.txt").write_text("some words")
        (root / "params.yaml").write_text("toy: {right: 1}\n")
        (root / ".gitignore").write_text("data\n.cache\n.ran\n")
        for command in (
            ["git", "init", "-q"],
            [sys.executable, "-m", "dvc", "init", "-q"],
            ["git", "add", "."],
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "toy"],
        ):
            subprocess.run(command, cwd=root, check=True, timeout=60)

    def ran(self) -> list[str]:
        """Return the stages that did work since the last call, sorted."""
        path = self.root / ".ran"
        stages = sorted(path.read_text().split()) if path.exists() else []
        path.unlink(missing_ok=True)
        return stages

    def fault(self, stage: str, kind: str) -> None:
        """Make a stage fail: each time, ``once``, or ``sleep`` for long with a child."""
        (self.root / f"fault-{stage}").write_text(kind)

    def mend(self, stage: str) -> None:
        (self.root / f"fault-{stage}").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def toy_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a toy project in which nothing ran; initialising Git and DVC takes seconds."""
    root = tmp_path_factory.mktemp("template") / "toy"
    root.mkdir()
    return Toy(root).root


@pytest.fixture
def toy(tmp_path: Path, toy_template: Path, quiet_dvc: dict[str, str]) -> Toy:
    """Return a toy project for this test alone."""
    root = tmp_path / "toy"
    shutil.copytree(toy_template, root)
    made = Toy.__new__(Toy)
    made.root = root
    return made
