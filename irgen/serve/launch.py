"""Put a service together and run it, in one process or in several behind one port.

What takes long to import is imported by the processes that answer, not by the one that watches
over them.
"""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import signal
import socket
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from irgen.errors import ReplacedWarning, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from irgen.index.index import Index
    from irgen.serve.candidate import Candidate
    from irgen.serve.measurements import Measurements
    from irgen.serve.refresh import Refresh

LOCAL = ("127.0.0.1", "localhost", "::1")  # hosts that only this machine reaches
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # all addresses, and one of this machine
ALIVE_SECONDS = 20  # in which a process must answer the one that watches over it, else it is killed
REQUEST_OBJECTS = 10_000  # made, until garbage is looked for among them: some dozen requests
DRAIN_SECONDS = 30  # for requests that are under way at the end


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a service. ``root``: of the project. ``folder``: of the index, None: the one that
    searches of the project read. ``bucket``: address of releases whose champion is served instead,
    None: none; ``every``: seconds between looks there. ``url``: where the service answers.
    ``tokens``: file that lists them; None: only this machine reaches the service, so no token is
    needed. ``fetch_hosts``: where pictures are fetched from that clients name by address, () for
    anywhere; None: they are refused. ``processes`` that answer. ``decoders`` and ``batch``: of each
    of them; so is ``rate``, the requests a second that a client may send. ``read_only``: nobody may
    change the index. ``candidate``, ``share`` and ``is_shadow``: see ``irgen.serve.candidate``."""

    root: Path
    folder: Path | None
    bucket: str | None
    every: float
    url: str
    tokens: Path | None
    fetch_hosts: tuple[str, ...] | None
    processes: int
    decoders: int
    batch: int
    rate: float | None
    read_only: bool
    candidate: str | None
    share: float
    is_shadow: bool
    log_requests: bool


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at ``host``. Raise ServiceError if the port is taken, or if
    ``host`` is no address of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OverflowError:
        raise ServiceError(f"--port {port}: a port is a number from 0 to 65535") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} is taken: choose another one with --port"
        else:
            text = f"--host {host} --port {port}: nobody can listen there ({error.strerror})"
        raise ServiceError(text) from None


def format_url(host: str, port: int) -> str:
    """Return the address at which this machine reaches the service.

    >>> format_url("::1", 8080), format_url("0.0.0.0", 80)
    ('http://[::1]:8080', 'http://127.0.0.1:80')
    """
    name = EVERYWHERE.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def run(settings: Settings, listener: socket.socket) -> None:
    """Answer until SIGTERM or Ctrl-C; then requests that are under way are answered. Raise
    ServiceError if the service cannot start."""
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from irgen.serve.access.slow_clients import HastyProtocol, allow_connections

    allow_connections()
    config = uvicorn.Config(
        partial(make_app, settings),
        factory=True,
        http=HastyProtocol,
        workers=settings.processes,
        log_level="warning",
        access_log=False,
        log_config=None,  # as the service's own: JSON, without secrets
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=ALIVE_SECONDS,
    )
    with suppress(KeyboardInterrupt):
        if settings.processes > 1:
            with tempfile.TemporaryDirectory(prefix="irgen-figures-") as folder:
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # see irgen.serve.measurements
                Multiprocess(config, sockets=[listener]).run()
            return
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        if not server.started:
            raise ServiceError("the service could not start: see the messages above")


def make_app(settings: Settings) -> FastAPI:
    """Return the application of this process."""
    import timm  # noqa: F401 – what models need, and the slowest to import
    import torch

    from irgen.compute.machine import keep_freed_memory
    from irgen.serve.access.fetch import Fetcher
    from irgen.serve.access.limits import RateLimit
    from irgen.serve.access.middleware import log_as_json
    from irgen.serve.access.tokens import Tokens
    from irgen.serve.app import create_app
    from irgen.serve.champion import Champion
    from irgen.serve.measurements import forget_dead_processes
    from irgen.serve.service import Limits, Service

    gc.freeze()  # what is here stays: looking through it later would stop all searches for 0.3 s
    gc.set_threshold(REQUEST_OBJECTS)
    keep_freed_memory()
    warnings.simplefilter("ignore", ReplacedWarning)  # the service opens the new one itself
    log_as_json(requests=settings.log_requests)
    if settings.processes > 1:
        Thread(target=end_with_parent, daemon=True).start()
        forget_dead_processes()
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // settings.processes))
    root, limits, hosts = settings.root, Limits(batch=settings.batch), settings.fetch_hosts
    tokens = None if settings.tokens is None else Tokens(settings.tokens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    service = Service(
        root,
        Champion(choose_index(settings), device),
        limits,
        decoders=settings.decoders,
        url=settings.url if tokens is None else None,  # irgen search gives no token
        refresh=choose_refresh(settings, device),
        fetcher=None if hosts is None else Fetcher(limits.bytes, hosts),
        try_out=None if settings.candidate is None else partial(make_candidate, settings, device),
        open_writer=None if settings.read_only else choose_writer(root, settings.folder),
    )
    rate = None if settings.rate is None else RateLimit(settings.rate)
    return create_app(service, tokens=tokens, rate=rate)


def choose_index(settings: Settings) -> Callable[[], Path]:
    """Return what finds the folder of the index that is served."""
    from irgen.releases import own_index, replica

    if settings.bucket is not None:
        return partial(replica.locate, settings.root, settings.bucket)
    return lambda: settings.folder or own_index.default_folder(settings.root)


def choose_refresh(settings: Settings, device: str) -> Refresh | None:
    """Return what brings the served index up to date: with the bucket, or with what is released
    here. None: nothing does."""
    from irgen.releases import own_index, replica
    from irgen.serve.refresh import Refresh
    from irgen.serve.service import LOOK_SECONDS

    root = settings.root
    if settings.bucket is not None:
        return Refresh(
            partial(replica.follow, root, settings.bucket),
            seconds=settings.every,
            failure="the bucket cannot be followed",
        )
    if settings.folder is not None:
        return None
    return Refresh(
        partial(own_index.refresh, root, device),
        seconds=LOOK_SECONDS,
        failure="the index with changes made here cannot follow",
    )


def make_candidate(settings: Settings, device: str, measurements: Measurements) -> Candidate:
    """Return the candidate that the settings name."""
    from irgen.serve.candidate import Candidate, locate
    from irgen.serve.champion import Champion

    root, name = settings.root, settings.candidate
    assert name is not None, "called only if there is a candidate"
    follower = Champion(lambda: locate(root, name), device, role="candidate")
    share, is_shadow = settings.share, settings.is_shadow
    return Candidate(root, follower, measurements, share=share, is_shadow=is_shadow)


def end_with_parent() -> None:
    """Wait for the process that watches over this one to end, then end this one, too: else it would
    keep the port."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process that another one started"
    parent.join()
    signal.raise_signal(signal.SIGTERM)


def choose_writer(root: Path, folder: Path | None) -> Callable[[float], Index] | None:
    """Return what opens the index for changes: the one in ``folder``, by default the project's own.
    None for a release or the pipeline's index, which never change. It waits at most the given
    seconds for another writer."""
    from irgen.index.index import Index
    from irgen.releases import own_index

    if folder is None:
        return lambda wait: own_index.open_writer(root, wait=wait)
    if own_index.is_release(folder) or own_index.is_of_pipeline(folder, root):
        return None
    return lambda wait: Index.open(folder, writable=True, wait=wait)
