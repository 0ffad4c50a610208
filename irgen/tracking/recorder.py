"""A stage's run as it is tracked: into a journal at once, on to the server by another process.

The stage itself never talks to the server: it appends to its journal, and the publisher (``irgen
publish --watch``) reads that. A server that is down, slow or gone cannot hold it up.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from irgen.errors import IrgenError, redact
from irgen.files import file_digest, read_json
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.tracking import provenance, run_log
from irgen.workspace import Workspace

PATIENCE = 60.0  # seconds a finished stage waits for what it tracked to be published
CONDUCTED = "IRGEN_CONDUCTED"  # set if whoever started the stage sees to it (irgen publish)
HEAD_START = 2.0  # seconds before the publisher is started: a stage may have nothing to tell
LINGER = 15.0  # seconds the publisher waits for the next stage
FOLLOWED = ("index/precision/", "index/hit/")  # of the quality, from revision to revision


@contextmanager
def recorded(stage: str, params: Params, workspace: Workspace, root: Path) -> Iterator["Record"]:
    """Records what happens in the block as the run of ``stage``.

    It is published while the next stages run if ``IRGEN_CONDUCTED`` is set; else the end waits for
    that. A run that logs no metric and leaves no new file (an unchanged download, a mistake of the
    user's that is told at once) is forgotten. Nothing that goes wrong with tracking reaches the
    block.
    """
    record = Record(stage, params, workspace, root)
    status, trouble = "FINISHED", ""
    try:
        yield record
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except BaseException as error:
        status, trouble = "FAILED", f"{type(error).__name__}: {error}"
        record.surprising = not isinstance(error, (IrgenError, OSError))
        raise
    finally:
        record.end(status, trouble)


class Record:
    """The open journal of a running stage."""

    def __init__(self, stage: str, params: Params, workspace: Workspace, root: Path) -> None:
        self.stage, self.params, self.workspace, self.root = stage, params, workspace, root
        self.started = time.time_ns() - 20_000_000  # file times may lag behind by a clock tick
        self.metrics: dict[str, float] = {}
        self.step = 0
        self.told = False  # whether there is a metric in the journal
        self.surprising = False  # ended by an error that is no user's mistake
        self.publisher: subprocess.Popen[bytes] | None = None
        self.starting = threading.Lock()
        self.path: Path | None = None
        self.file: TextIO | None = None
        with _never_fatal():
            place = provenance.journals(root)
            self.path, self.file = run_log.create(place, provenance.build(), stage)
            self._append("begin", **beginning(stage, params, root))
            self.timer = threading.Timer(HEAD_START, self._publish)
            self.timer.daemon = True
            self.timer.start()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Metrics of a step (an epoch); what has no value (None) is left out."""
        values = {key: float(value) for key, value in metrics.items() if value is not None}
        self.step = max(self.step, step)
        self.told = True
        self._append("metrics", values=values, step=step)
        if self.path is not None:
            self.tell_trouble()

    def result(self, metrics: dict[str, float]) -> None:
        """The metrics the stage ends with."""
        self.metrics = dict(metrics)

    def end(self, status: str, trouble: str) -> None:
        """Closes the journal, waits for what is not published yet, and keeps copies if it must."""
        if self.file is None or self.path is None:
            return
        with _never_fatal():
            self.timer.cancel()
            files = new_files(self.workspace, self.stage, self.started)
            if not (self.told or self.metrics or files or self.surprising):
                self._forget()
                return
            self._finish(status, trouble, files)
            self._settle(files)

    def _finish(self, status: str, trouble: str, files: list[dict[str, Any]]) -> None:
        summary = quality(self.workspace) if self.stage in ("evaluate", "report") else {}
        final = self.metrics | (summary if self.stage == "evaluate" else {})
        if final:
            self._append("metrics", values=final, step=self.step)
        if os.environ.get(CONDUCTED):  # before there is an end, with which copies are let go of
            self._keep(files)
        self._append(
            "end",
            status=status,
            trouble=trouble,
            artifacts=files,
            tables=provenance.tables(self.root, self.stage) if status == "FINISHED" else [],
            summary=summary,
            standing=provenance.standing(self.root),
            monitor=monitored(self.workspace) if self.stage == "drift" else None,
        )

    def _settle(self, files: list[dict[str, Any]]) -> None:
        assert self.path is not None and self.file is not None
        self._publish()
        if not (os.environ.get(CONDUCTED) or self._published()) and self.path.exists():
            self._keep(files)
        self.tell_trouble()
        self.file.close()

    def _keep(self, files: list[dict[str, Any]]) -> None:
        """Copies what is to be published, so that it may be changed before it is."""
        assert self.path is not None
        _keep(files, run_log.keepsakes(self.path), self.params.tracking.max_artifact_megabytes)

    def _published(self) -> bool:
        """Waits until the publisher is through with the journal, has given it up, or is gone."""
        assert self.path is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            state = run_log.state(self.path)
            if state["done"] or state.get("gave_up"):
                return state["done"]
            starting = self.publisher is not None and self.publisher.poll() is None
            if not starting and not run_log.is_held(provenance.publisher_lock(self.root)):
                return run_log.state(self.path)["done"]
            time.sleep(0.05)
        return False

    def _forget(self) -> None:
        assert self.path is not None and self.file is not None
        self.path.unlink(missing_ok=True)
        self.file.close()
        with suppress(OSError):
            self.path.parent.rmdir()
        if run_log.unpublished(provenance.journals(self.root)):
            self._publish()

    def _publish(self) -> None:
        with self.starting, _never_fatal():
            held = run_log.is_held(provenance.publisher_lock(self.root))
            if self.publisher is None and not held:
                self.publisher = start_publisher(self.root)

    def tell_trouble(self) -> None:
        """Says once a build what keeps the publisher from its work."""
        assert self.path is not None
        trouble = self.path.parent / "trouble"
        with suppress(OSError):
            if trouble.exists():
                (self.path.parent / "told").touch(exist_ok=False)
                later = "the run goes on and is logged later (by the next run, or irgen publish)"
                _warn(f"{trouble.read_text()}; {later}")

    def _append(self, kind: str, **fields: Any) -> None:
        if self.file is None:
            return
        try:
            run_log.append(self.file, kind, **redact(fields))
        except OSError as error:
            self.file = None
            _warn(f"the journal {self.path} cannot be written ({error.strerror}); the run goes on")


def start_publisher(root: Path) -> "subprocess.Popen[bytes]":
    """Starts the publisher in a session of its own; what it has to say goes to a log file."""
    home = provenance.project(root)
    command = [sys.executable, "-m", "irgen", "publish", "--root", str(home)]
    modules = Path(__file__).resolve().parents[1]
    search_path = os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (provenance.journals(root) / "publisher.log").open("w") as log:
        return subprocess.Popen(
            [*command, "--watch", str(LINGER)],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": search_path},
            start_new_session=True,
        )


def beginning(stage: str, params: Params, root: Path) -> dict[str, Any]:
    """The first record of a run of ``stage``: what it belongs to, its tags and its parameters."""
    everything = flatten(params)
    named = provenance.declared(root, stage).get("params", [stage])
    own = {
        key: value
        for key, value in everything.items()
        if any(key == name or key.startswith(f"{name}.") for name in named)
    }
    return {
        "stage": stage,
        "build": provenance.build(),
        "store": provenance.store_key(root),
        "experiment": params.tracking.experiment,
        "max_bytes": params.tracking.max_artifact_megabytes * 1_000_000,
        "tags": provenance.tags(root, stage),
        "params": own,
        "all_params": everything,
    }


def new_files(workspace: Workspace, stage: str, since: int) -> list[dict[str, Any]]:
    """The stage's files and reports written since ``since`` (ns): name, path, bytes, sha256."""
    places = [(workspace.stage(stage), "")]
    if stage in ("evaluate", "report"):
        places.append((workspace.reports, "reports/"))
    return [each for place, prefix in places for each in described(place, prefix, since)]


def described(
    place: Path, prefix: str = "", since: int = 0, only: str = "*"
) -> list[dict[str, Any]]:
    """The files below ``place`` that are named like ``only`` and were written since ``since`` (ns):
    name, path, bytes, sha256."""
    found = []
    for path in sorted(place.rglob(only)):
        if path.name.startswith(".") or not path.is_file() or path.stat().st_mtime_ns < since:
            continue
        found.append(
            {
                "name": prefix + path.relative_to(place).as_posix(),
                "path": str(path.resolve()),
                "bytes": path.stat().st_size,
                "sha256": file_digest(path),
            }
        )
    return found


def quality(workspace: Workspace) -> dict[str, float]:
    """``data/evaluate/metrics.json`` as one flat mapping: ``generative/precision/10`` and so on."""
    path = workspace.stage("evaluate") / "metrics.json"
    return numbers(read_json(path)) if path.exists() else {}


def monitored(workspace: Workspace) -> dict[str, Any] | None:
    """What is followed from one data revision (``step``) to the next: ``values`` of the drift and
    of the served index's quality. None before the stage drift has run."""
    place = workspace.stage("drift")
    if not (place / "metrics.json").exists():
        return None
    values = {
        f"drift/{name}": each for name, each in numbers(read_json(place / "metrics.json")).items()
    }
    values |= {name: each for name, each in quality(workspace).items() if name.startswith(FOLLOWED)}
    return {"step": provenance.data_revision(workspace.data.parent), "values": values}


def numbers(tree: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in nested mappings, by their paths.

    >>> numbers({"index": {"precision/10": 1}, "name": "x"})
    {'index/precision/10': 1.0}
    """
    found: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            found[f"{prefix}{name}"] = float(value)
    return found


def _keep(files: list[dict[str, Any]], place: Path, megabytes: int) -> None:
    for file in files:
        copy = place / file["name"]
        if file["bytes"] <= megabytes * 1_000_000 and Path(file["path"]).is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file["path"], copy)


@contextmanager
def _never_fatal() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tracking must not end a training run, whatever ails it
        _warn(f"{redact(f'{type(error).__name__}: {error}')}; the run goes on")


def _warn(message: str) -> None:
    print(f"tracking: {message}", file=sys.stderr, flush=True)
