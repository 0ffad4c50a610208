"""Ray Train runs trainings on a cluster of this machine, as ``compute.engine: ray`` says."""

import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from irgen.checkpoints import tensor_file
from irgen.compute.workers import run_workers
from irgen.errors import ClusterError, IrgenWarning, NumberError, TrackingError
from irgen.params import Compute

from ..ray_cluster import start_cluster, this_module
from . import small_trainings
from .small_trainings import RETRIEVER, TOKENIZER, train

TWO = Compute(device="cpu", engine="ray", workers=2)


@pytest.fixture(scope="module")
def two_processors() -> Iterator[None]:
    """Start a cluster of two processors on this machine, to which the small trainings travel."""
    with start_cluster(2, small_trainings, this_module(__name__)):
        yield


def run_on_cluster(name: str, folder: Path, settings, work=train):
    """Return weights, history and what was logged."""
    rows = []
    arguments = [name, "batch", settings, str(folder), 0.0]
    run_workers(work, arguments, TWO, lambda row, step: rows.append((row, step)))
    tensors, history = tensor_file.load(folder / "model.safetensors")
    return tensors, history, rows


def check_quality(metric: str, alone: list[dict], history: list[dict]) -> None:
    best = [max(row[metric] for row in rounds) for rounds in (alone, history)]
    assert best[1] >= best[0] - 0.05


def train_alone(name: str, folder: Path, settings) -> list[dict]:
    """Return the history of a training in this process."""
    train(name, "batch", settings, str(folder / "alone"), 0.0, lambda row, step: None)
    return tensor_file.load(folder / "alone" / "model.safetensors")[1]


@pytest.mark.slow
def test_a_training_on_a_cluster_ends_the_same_when_a_process_is_lost(two_processors, tmp_path):
    whole, history, rows = run_on_cluster("retriever", tmp_path / "whole", RETRIEVER)
    assert [row | {"step": step} for row, step in rows] == history

    def train_and_die_once(name, norm, settings, folder, seconds, log):
        def die(row, step):
            if step == 24 and not (Path(folder) / "died").exists():
                (Path(folder) / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            log(row, step)

        return train(name, norm, settings, folder, seconds, die)

    with pytest.warns(IrgenWarning, match="the training on the cluster begins again"):
        again = run_on_cluster("retriever", tmp_path / "broken", RETRIEVER, train_and_die_once)
    assert again[1] == history and again[2] == rows
    assert all(torch.equal(tensor, again[0][key]) for key, tensor in whole.items())
    check_quality("validation/precision/10", train_alone("retriever", tmp_path, RETRIEVER), history)


@pytest.mark.slow
def test_a_tokenizer_is_trained_on_a_cluster_as_well_as_in_one_process(two_processors, tmp_path):
    _, history, rows = run_on_cluster("tokenizer", tmp_path / "both", TOKENIZER)
    assert [row | {"step": step} for row, step in rows] == history
    alone = train_alone("tokenizer", tmp_path, TOKENIZER)
    check_quality("validation/accuracy/embedding", alone, history)


@pytest.mark.slow
def test_a_mistake_on_a_cluster_is_said_at_once(two_processors, tmp_path):
    settings = replace(TOKENIZER, learning_rate=10.0, weight_decay=1e6, temperature=0.001)
    with warnings.catch_warnings():
        warnings.simplefilter("error", IrgenWarning)  # it would begin again
        with pytest.raises(NumberError, match="the training diverges; lower tokenizer"):
            run_on_cluster("tokenizer", tmp_path, settings)
    many = replace(TWO, workers=99)
    with pytest.raises(ClusterError, match="99 processes, but the cluster has 2 processors"):
        run_workers(train, [], many, lambda row, step: None)


@pytest.mark.slow
def test_an_error_of_the_log_is_raised(two_processors):
    def work(log):
        log({"loss": 1.0}, 1)
        return {}

    def log(row, step):
        raise TrackingError("the tracking server is gone")

    with pytest.raises(TrackingError, match=r"^the tracking server is gone$"):
        run_workers(work, [], TWO, log)
