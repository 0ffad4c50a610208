"""Several processes do a work together, and end together."""

import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from irgen.compute.workers import count_workers, run_workers
from irgen.errors import IrgenError, IrgenWarning, NumberError, ParamsError
from irgen.params import Compute

from ..waiting import wait_until
from . import works

ROOT = Path(__file__).resolve().parents[2]
TWO = Compute(device="cpu", workers=2)


def quiet(row, step):
    pass


@pytest.fixture(autouse=True)
def importable(monkeypatch) -> None:
    """Let worker processes import this folder, and check that none of them is left."""
    monkeypatch.syspath_prepend(str(ROOT))
    before = set(workers_of(os.getpid()))
    yield
    assert set(workers_of(os.getpid())) <= before


def workers_of(process: int) -> list[int]:
    children = psutil.Process(process).children(recursive=True)
    return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_the_first_process_logs_warns_and_returns():
    rows = []
    with pytest.warns(IrgenWarning, match="process 0 warns") as caught:
        result = run_workers(works.introduce, [], TWO, lambda row, step: rows.append((step, row)))
    assert result == {"rank": 0, "size": 2, "local_size": 2}
    assert rows == [(1, {"rank": 0})] and len(caught) == 1


def test_one_process_is_this_one():
    def work(number, log):
        log({"number": number}, 1)
        return {"process": os.getpid()}  # a closure, which could not be sent to another process

    rows = []
    result = run_workers(work, [3], Compute(device="cpu"), lambda row, step: rows.append(row))
    assert result == {"process": os.getpid()} and rows == [{"number": 3}]


@pytest.mark.parametrize("workers", [2, 3])
def test_processes_exchange_uneven_shares(workers):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as one of torch that a function is deprecated
        run_workers(works.exchange, [], replace(TWO, workers=workers), quiet)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_in_one_process_is_the_error_of_all(rank, capfd):
    with pytest.raises(NumberError, match="the training diverges; lower the rate"):
        run_workers(works.fail, ["mistake", rank], TWO, quiet)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_named_and_what_follows_from_it_is_not(rank, capfd):
    message = rf"process {rank + 1} of 2 of the training was killed by SIGKILL: .* run the stage"
    with pytest.raises(IrgenError, match=message):
        run_workers(works.fail, ["kill", rank], TWO, quiet)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_other_errors_come_as_they_are():
    with pytest.raises(ValueError, match="a bug") as raised:
        run_workers(works.fail, ["bug", 1], TWO, quiet)
    assert "works.py" in "".join(raised.value.__notes__)
    with pytest.raises(OSError, match="No space left on device") as raised:
        run_workers(works.fail, ["disk", 1], TWO, quiet)
    assert raised.value.errno == 28
    with pytest.raises(IrgenError, match=r"index has a writer already \(process 7\)"):
        run_workers(works.fail, ["lock", 0], TWO, quiet)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_one_that_started_it(number, tmp_path):
    command = [sys.executable, str(Path(works.__file__)), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as parent:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "two processes did not start")
        workers = [int(path.name) for path in tmp_path.iterdir()]
        if number == signal.SIGINT:
            os.killpg(parent.pid, number)  # as a terminal does
        else:
            parent.send_signal(number)
        try:
            printed = parent.communicate(timeout=60)[1].decode()
        finally:
            parent.kill()
    wait_until(lambda: not any(map(is_running, workers)), "processes were left")
    assert printed.count("Traceback") == (number == signal.SIGINT)  # which the command line says
    assert "semaphore" not in printed


def is_running(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_there_is_a_process_for_each_gpu_unless_a_number_is_given(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    counts = {"auto": 4, "cuda": 4, "cuda:1": 1, "cpu": 1}
    for device, count in counts.items():
        assert count_workers(Compute(device=device)) == count
        assert count_workers(Compute(device=device, workers=1)) == 1
    assert count_workers(Compute(device="auto", workers=3)) == 3
    assert count_workers(Compute(device="cpu", workers=6)) == 6
    with pytest.raises(ParamsError, match=r"workers: 5 processes, but this machine has 4 GPUs"):
        count_workers(Compute(device="cuda", workers=5))
    with pytest.raises(ParamsError, match=r"workers: 2 processes cannot share cuda:1; set"):
        count_workers(Compute(device="cuda:1", workers=2))
