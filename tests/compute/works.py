"""Work that several processes do in the tests of ``run_workers``."""

import os
import signal
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from irgen.compute.world import current_world
from irgen.errors import IrgenWarning, LockedError, NumberError


def introduce(log) -> dict[str, float]:
    """Log and return the number of this process; warn."""
    world = current_world()
    warnings.warn(f"process {world.rank} warns", IrgenWarning, stacklevel=1)
    log({"rank": world.rank}, 1)
    return {"rank": world.rank, "size": world.size, "local_size": world.local_size}


def fail(kind: str, rank: int, log) -> dict[str, float]:
    """End process ``rank`` in some way, while the others wait for it."""
    if current_world().rank == rank:
        if kind == "mistake":
            raise NumberError("the training diverges; lower the rate")
        if kind == "lock":
            raise LockedError("index", "process 7")
        if kind == "bug":
            raise ValueError("a bug")
        if kind == "disk":
            raise OSError(28, "No space left on device", "state.safetensors")
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()
    return {}


def wait(folder: str, log) -> dict[str, float]:
    """Note the number of this process in ``folder``, and wait."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(120)
    return {}


def exchange(log) -> dict[str, float]:
    """Check what processes exchange; a batch of 7 is divided unevenly."""
    world = current_world()
    batch = torch.arange(14.0).view(7, 2)
    own = batch[world.share(7)].requires_grad_()
    whole = world.gather(own, 7)
    assert torch.equal(whole, batch)
    weights = torch.arange(7.0)[:, None]
    (whole * weights).sum().backward()
    expected = torch.zeros(world.size * len(own), 1)
    expected[:7] = world.size * weights  # its mean over the processes is the whole gradient
    first = world.rank * len(own)
    assert torch.equal(own.grad, expected[first : first + len(own)].expand(-1, 2))
    numbers = torch.arange(5)[world.split(5)]
    collected = world.collect(numbers[:, None])
    assert world.rank or collected.flatten().tolist() == [0, 1, 2, 3, 4]
    assert world.collect(torch.arange(1)[world.split(1)]).tolist() in ([0], [])
    assert world.once(lambda: world.rank) == 0
    copied = torch.full((2,), float(world.rank))
    world.copy_first([copied])
    assert copied.tolist() == [0, 0]
    used, unused = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    (used * world.rank).backward()
    world.average_gradients([used, unused])
    assert used.grad == (world.size - 1) / 2 and unused.grad is None
    return {}


def main() -> None:
    """Wait in two processes, which a test then ends."""
    import sys

    from irgen.compute.workers import run_workers
    from irgen.params import Compute

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    run_workers(wait, sys.argv[1:2], Compute(device="cpu", workers=2), lambda row, step: None)


if __name__ == "__main__":
    main()
