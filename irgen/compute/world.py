"""Divide a training among processes, and bring their parts together. Each has a share of every
batch, and all hold the same weights."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Log = Callable[[dict[str, float], int], None]  # of metrics and a step
Work = Callable[..., dict[str, float]]  # of arguments and a Log; it returns metrics
T = TypeVar("T")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """Processes of a training: this is number ``rank`` of ``size``, ``local_size`` of which run on
    this machine. A process that is alone has everything and exchanges nothing."""

    rank: int = 0
    size: int = 1
    local_size: int = 1

    def share(self, count: int) -> Tensor:
        """Return the positions (⌈count / size⌉,) of this process's share of a batch: contiguous,
        and filled up with the last one, so that all have equally many.

        >>> [World(rank, 2).share(3).tolist() for rank in (0, 1)]
        [[0, 1], [2, 2]]
        """
        length = -(-count // self.size)
        return (self.rank * length + torch.arange(length)).clamp_max(count - 1)

    def split(self, count: int) -> slice:
        """Return which of ``count`` items are this process's: contiguous ones, maybe none.

        >>> [World(rank, 3).split(4) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 4, None)]
        """
        length = -(-count // self.size)
        return slice(*(min(rank * length, count) for rank in (self.rank, self.rank + 1)))

    def gather(self, share: Tensor, count: int) -> Tensor:
        """Return the whole batch (``count``, …) of which this is the ``share`` (b, …). Gradients
        flow back to all processes, so that each may compute the loss of the whole batch."""
        if self.size == 1:
            return share
        whole: Tensor = _Gather.apply(share.contiguous(), self)
        return whole[:count]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        transfers = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
        for gradient, transfer in zip(gradients, transfers, strict=True):
            transfer.wait()
            gradient /= self.size

    @torch.no_grad()
    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite ``tensors`` by those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def collect(self, rows: Tensor) -> Tensor:
        """Return the rows (N, …) of all processes on the first one, in the order of their numbers;
        the others keep theirs. They are on the CPU."""
        if self.size == 1:
            return rows
        counts = [0] * self.size
        dist.all_gather_object(counts, len(rows))
        if self.rank > 0:
            if len(rows):
                dist.send(rows.contiguous(), 0)
            return rows
        whole = rows.new_empty(sum(counts), *rows.shape[1:])
        whole[: len(rows)] = rows
        for rank, part in enumerate(whole.split(counts)):
            if rank > 0 and len(part):
                dist.recv(part, rank)
        return whole

    def once(self, work: Callable[..., T], *arguments: object) -> T:
        """Return the result of ``work(*arguments)``, which the first process computes for all."""
        if self.size == 1:
            return work(*arguments)
        results = [work(*arguments) if self.rank == 0 else None]
        dist.broadcast_object_list(results, 0, device=CPU)
        return results[0]  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    """Concatenate the shares of all processes. The gradient of a share is the sum of what all
    processes say of it."""

    @staticmethod
    def forward(context: Any, share: Tensor, world: World) -> Tensor:
        context.world = world
        shares = [torch.empty_like(share) for _ in range(world.size)]
        dist.all_gather(shares, share)
        return torch.cat(shares)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(context.world.size)[context.world.rank], None


def current_world() -> World:
    """Return the processes that this one was started with; a world of one if it is alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return World(dist.get_rank(), dist.get_world_size(), local_size)
