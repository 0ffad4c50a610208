"""A training that was killed continues and ends as an unbroken one."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from .conftest import files

ALONE = """
import importlib, pathlib, sys
from irgen.params import load
from irgen.files.workspace import Workspace
stage, root = sys.argv[1], pathlib.Path(sys.argv[2])
run = importlib.import_module(f"irgen.stages.{stage}").run
run(load(root / "params.yaml"), Workspace.at(root), lambda metrics, step: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tokenizer", "retriever"])
def test_a_training_killed_half_way_goes_on_and_ends_the_same(copy, stage):
    folder, _ = copy
    output = folder / "data" / stage
    shutil.rmtree(output)
    command = [sys.executable, "-c", ALONE, stage, str(folder)]
    # Sums come out the same on the same number of threads only.
    settings = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(command, env=settings, stdout=subprocess.DEVNULL, timeout=120, check=True)
    whole = files(output)
    shutil.rmtree(output)
    child = subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL)
    states, deadline = folder / ".cache" / "training", time.monotonic() + 60
    while not list(states.glob("*/state.safetensors")):
        assert child.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline, "no round within a minute"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not output.exists()
    again = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert f"{stage}: going on after step" in again.stdout + again.stderr
    assert files(output) == whole
    assert not list(states.glob("*/state.safetensors"))
