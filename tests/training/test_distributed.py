"""Trainings in two processes come to the same as in one, and survive being killed."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from irgen.checkpoints import tensor_file
from irgen.compute.workers import run_workers
from irgen.errors import NumberError
from irgen.params import Compute

from ..waiting import wait_until
from . import small_trainings
from .small_trainings import RETRIEVER, TOKENIZER, train

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "tokenizer": TOKENIZER,
    "clusters": replace(TOKENIZER, labels="clusters"),
    "retriever": RETRIEVER,
}
KEPT = {"tokenizer": "validation/accuracy/embedding", "retriever": "validation/precision/10"}


@pytest.fixture(autouse=True)
def importable(monkeypatch) -> None:
    """Let worker processes import the trainings of this folder."""
    monkeypatch.syspath_prepend(str(ROOT))


def train_in(workers: int, name: str, norm: str, folder: Path, settings):
    """Return weights, history and what was logged."""
    rows = []
    compute = Compute(device="cpu", workers=workers)
    arguments = [name, norm, settings, str(folder), 0.0]
    run_workers(train, arguments, compute, lambda *row: rows.append(row))
    tensors, history = tensor_file.load(folder / "model.safetensors")
    return tensors, history, rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer", "clusters", "retriever"])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_two_processes_learn_what_one_does_and_log_it_once(name, norm, tmp_path):
    """They draw the same batches, changes and neighbours. So gradients are the same but for batch
    norm, which sees the share of a process; and losses, until differences in the last bits grow."""
    settings = SETTINGS[name]
    training = "retriever" if name == "retriever" else "tokenizer"
    alone = train_in(1, training, norm, tmp_path / "alone", settings)
    both = train_in(2, training, norm, tmp_path / "both", settings)
    assert [step for _, step in both[2]] == [step for _, step in alone[2]] == [8, 16, 24, 32]
    assert [row | {"step": step} for row, step in both[2]] == both[1]
    assert both[1][0].keys() == alone[1][0].keys()
    tolerance = {"layer": 1e-4, "batch": 0.15}[norm]
    assert both[1][0]["loss"] == pytest.approx(alone[1][0]["loss"], rel=tolerance)
    if name in KEPT:
        best = [max(row[KEPT[name]] for row in history) for history in (alone[1], both[1])]
        assert best[1] >= best[0] - 0.05


@pytest.fixture(scope="module", params=["tokenizer", "retriever"])
def unbroken(request, tmp_path_factory):
    """Return a training's name, its weights and its history."""
    folder = tmp_path_factory.mktemp(request.param)
    run_program(request.param, folder)
    return request.param, *tensor_file.load(folder / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["first", "second", "all"])
def test_processes_killed_half_way_go_on_and_end_with_the_same_bits(unbroken, killed, tmp_path):
    name, whole, history = unbroken
    folder = tmp_path / "broken"
    program = start_program(name, folder, 1.0)
    try:
        state = folder / "state"
        wait_until(lambda: list(state.glob("*/state.safetensors")), "no round")
        workers = workers_of(program.pid)
        assert len(workers) == 2, "the training ended before it could be killed"
        victims = {"first": workers[:1], "second": workers[1:], "all": [program.pid]}[killed]
        for process in victims:
            os.kill(process, signal.SIGKILL)
        printed = program.communicate(timeout=60)[1]
    finally:
        program.kill()
    wait_until(lambda: not any(map(psutil.pid_exists, workers)), "processes were left")
    if killed != "all":
        assert "of 2 of the training was killed by SIGKILL" in printed.splitlines()[-1]
    assert not (folder / "model.safetensors").exists()
    assert f"{name}: going on after step" in run_program(name, folder)
    resumed, again = tensor_file.load(folder / "model.safetensors")
    assert again == history
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())


def start_program(name: str, folder: Path, seconds: float) -> subprocess.Popen:
    command = [sys.executable, small_trainings.__file__, name, str(folder), str(seconds)]
    # Sums come out the same on the same number of threads only.
    settings = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": ""}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=settings, stdout=pipe, stderr=pipe, text=True)


def run_program(name: str, folder: Path) -> str:
    program = start_program(name, folder, 0.0)
    printed = "".join(program.communicate(timeout=120))
    assert program.returncode == 0, printed
    return printed


def workers_of(process: int) -> list[int]:
    """Return the processes of a training in the order of their numbers."""
    children = psutil.Process(process).children()
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return [child.pid for child in sorted(workers, key=lambda child: child.pid)]


def test_a_diverging_training_is_one_clear_sentence(tmp_path):
    settings = replace(TOKENIZER, learning_rate=10.0, encoder_learning_rate=10.0, temperature=0.001)
    settings = replace(settings, weight_decay=1e6)
    with pytest.raises(NumberError, match=r"the training diverges; lower tokenizer.learning_rate"):
        train_in(2, "tokenizer", "layer", tmp_path, settings)
