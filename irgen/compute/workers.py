"""Run a training in several processes of this machine: one for each GPU, or some on the CPU.

A process that fails or is killed ends the others. None outlives the process that started them.
"""

import copy
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock, Thread
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from irgen.compute import cluster_training
from irgen.compute.world import Log, Work
from irgen.errors import IrgenError, ParamsError
from irgen.params import Compute

WAIT = timedelta(days=7)  # for another process, such as the first one while it validates
BLAME_SECONDS = 5.0  # in which the failure that others follow from is heard of


@dataclass(frozen=True)
class Worker:
    """A process, its number among all, and the pipe that brings its messages."""

    rank: int
    process: BaseProcess
    messages: Connection


def count_workers(settings: Compute) -> int:
    """Return the number of processes of a training: ``compute.workers``, or one for each GPU of
    this machine. Raises ParamsError if the device cannot be shared by so many."""
    workers, device = settings.workers, settings.device
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if workers <= 1:
        return workers or max(gpus, 1)
    if device not in ("auto", "cpu", "cuda"):
        raise ParamsError(
            f"params.yaml: compute: workers: {workers} processes cannot share {device}; set "
            "compute.device to cuda for one GPU each, or compute.workers to 1"
        )
    if gpus and workers > gpus:
        raise ParamsError(
            f"params.yaml: compute: workers: {workers} processes, but this machine has {gpus} "
            f"GPU{'s' * (gpus > 1)}; allowed: at most {gpus}, or 0 for one process each"
        )
    return workers


def run_workers(
    work: Work, arguments: Sequence[Any], settings: Compute, log: Log
) -> dict[str, float]:
    """Return the metrics of ``work(*arguments, log)``, which runs in the processes that
    ``settings`` choose, here or on a cluster. The first one's metrics and log count.

    ``work`` and its arguments are sent to the processes, so they are functions of modules, settings
    and paths. Raises the IrgenError of a process.
    """
    return ENGINES[settings.engine](work, arguments, settings, log)


def _run_here(
    work: Work, arguments: Sequence[Any], settings: Compute, log: Log
) -> dict[str, float]:
    """Do the work in ``count_workers`` processes of this machine, or in this one if that is 1.
    Raises IrgenError saying which process was killed, too."""
    count = count_workers(settings)
    if count == 1:
        return work(*arguments, log)
    with TemporaryDirectory(prefix="irgen-workers-") as folder:
        store = Path(folder) / "store"
        with _start(count, store, settings, work, arguments) as workers:
            return _supervise(workers, log)


ENGINES = {"local": _run_here, "ray": cluster_training.train}


@contextmanager
def _start(count: int, *arguments: Any) -> Iterator[list[Worker]]:
    """Start ``count`` processes, and kill them at the end of the block."""
    context, workers = multiprocessing.get_context("spawn"), list[Worker]()
    try:
        for rank in range(count):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(rank, count, sender, *arguments))
            process.start()
            sender.close()  # so that the pipe ends when the process does
            workers.append(Worker(rank, process, receiver))
        yield workers
        for worker in workers:
            worker.process.join(BLAME_SECONDS)
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()


def _supervise(workers: Sequence[Worker], log: Log) -> dict[str, float]:
    """Return the result of the first process when all have ended. Log its rows meanwhile."""
    waiting = {worker.messages: worker for worker in workers}
    results, crashes = dict[int, dict[str, float]](), list[Exception]()
    while waiting:
        ready = wait(list(waiting), BLAME_SECONDS if crashes else None)
        if not ready:
            break
        for pipe in ready:
            worker = waiting[pipe]  # type: ignore[index]
            try:
                kind, content = worker.messages.recv()
            except EOFError:
                raise IrgenError(_describe_end(worker, len(workers))) from None
            if kind == "row":
                if worker.rank == 0:
                    log(*content)
            elif kind == "warning":
                warnings.warn(content, stacklevel=2)
            elif kind == "error" and isinstance(content, IrgenError):
                raise content
            else:
                waiting.pop(worker.messages)
                if kind == "error":  # maybe because another process, which it needs, was killed
                    crashes.append(content)
                else:
                    results[worker.rank] = content
    if crashes:
        raise crashes[0]
    return results[0]


def _describe_end(worker: Worker, count: int) -> str:
    worker.process.join()
    status = worker.process.exitcode or 0
    end = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended ({status})"
    return (
        f"process {worker.rank + 1} of {count} of the training {end}: if the memory was full, set "
        "compute.workers to fewer; run the stage again, and it goes on after the last round"
    )


def _run(
    rank: int,
    count: int,
    messages: Connection,
    store: Path,
    settings: Compute,
    work: Work,
    arguments: Sequence[Any],
) -> None:
    """Do the work as process ``rank`` of ``count``, and send what comes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that watches over it
    Thread(target=_end_with_parent, daemon=True).start()
    if rank > 0:
        for stream in (1, 2):  # what it prints, the first process prints
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    tqdm.set_lock(RLock())  # its own would outlive a killed process
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    send = messages.send
    try:
        with warnings.catch_warnings(), _join(rank, count, store, settings):
            if rank == 0:
                warnings.showwarning = lambda message, *_: send(("warning", message))
            result = work(*arguments, lambda row, step: send(("row", (row, step))))
    except Exception as error:
        send(("error", _make_portable(error)))
    else:
        send(("result", result))


@contextmanager
def _join(rank: int, count: int, store: Path, settings: Compute) -> Iterator[None]:
    """Join the other processes, of which each has the GPU of its number. What lies on the CPU goes
    by gloo, what lies on GPUs by NCCL."""
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(rank)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(
        backend, init_method=f"file://{store}", rank=rank, world_size=count, timeout=WAIT
    )
    yield
    dist.destroy_process_group()


def _end_with_parent() -> None:
    """End this process at once when the one that started it has ended, however it did."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process that another one started"
    parent.join()
    os._exit(1)


def _make_portable(error: Exception) -> Exception:
    """Return ``error`` with its traceback as a note, or one of the same words if it cannot be made
    again from its arguments, as sending it does."""
    try:
        portable = copy.copy(error)
    except TypeError:
        return IrgenError(str(error)) if isinstance(error, IrgenError) else RuntimeError(str(error))
    if not isinstance(error, IrgenError):
        portable.add_note(traceback.format_exc())
    return portable
