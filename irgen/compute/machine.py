"""Set device, precision, determinism, memory and threads of a process's computations."""

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, Literal, TypeVar

import torch

from irgen.compute.world import World, current_world
from irgen.errors import ParamsError
from irgen.params import Compute

T = TypeVar("T")
# Multiplications of a matrix product from which a second core saves more than it takes to wake it.
# Searches on two cores took 0.7 to 1.1 × as long as on one above this size; below it 1.1 to 2.4 ×,
# the more the busier the machine was. Threads that spin instead of sleeping were no help: beside
# busy processes they made the same searches 3 to 20 × slower.
WORTH_A_CORE = 1 << 24
DEFAULT_THREADS = Lock()  # held while torch's default of threads is not the user's


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Device of a stage, its autocast type (None: plain fp32), and the processes that share the
    work."""

    device: torch.device
    autocast: torch.dtype | None
    world: World = field(default=World(), repr=False)  # decides no result

    def precision(self) -> AbstractContextManager:
        """Return a context in which matrix products run in the chosen precision."""
        return torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a CPU tensor to the device. On CUDA it goes through pinned memory, and what is
        computed with it waits for it, not this process."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    @property
    def decoder(self) -> Literal["fp32", "bf16"]:
        """Return the precision of a search decoder, which is that of encoders."""
        return "fp32" if self.autocast is None else "bf16"


def prepare(settings: Compute) -> Machine:
    """Choose device and precision, and make torch deterministic; on CUDA it warns about operations
    that are not. Raises ParamsError if the device is not available."""
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms imports a compiler
    torch.backends.cudnn.allow_tf32 = False  # plain fp32 is meant to be that
    keep_freed_memory()
    device = _device(settings.device)  # of several processes, each has set its own GPU
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    autocast = torch.bfloat16 if precision == "bf16" else None
    return Machine(device=device, autocast=autocast, world=current_world())


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParamsError(
            f"params.yaml: compute: device: {name!r} cannot be used here "
            f"({str(error).splitlines()[0]}); allowed: auto, cpu, cuda, cuda:<n>"
        ) from None
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bf16; emulation is ten times slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(features.get(n) for n in ("amx_tile", "avx512_bf16"))


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of returning them to the system.

    A convolution's activations are larger than malloc's mmap threshold, so every layer of every
    batch would fault fresh pages in; see ``benchmarks/allocator.py`` for what that costs.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (OSError, AttributeError):  # not glibc
        return
    trim_threshold, mmap_threshold, gigabyte = -1, -3, 1 << 30
    mallopt(mmap_threshold, gigabyte)
    mallopt(trim_threshold, 2 * gigabyte - 1)


def return_freed_memory() -> None:
    """Return all memory that is free to the system, in spite of ``keep_freed_memory``: after work
    that is done seldom and takes much, such as the merge of two indexes."""
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def run_on_one_core(work: Callable[..., T], *arguments: Any) -> T:
    """Run ``work(*arguments)`` on a thread on which torch uses a single core. Ctrl-C takes effect
    when the work is done.

    OpenMP gives each thread workers of its own at its first parallel operation. If there are more
    workers than cores, all operations take longer: a thread that changes an index would slow
    concurrent searches by a third.
    """
    future = _threads(os.getpid()).submit(work, *arguments)
    try:
        return future.result()
    finally:
        wait([future])


def run_on_fitting_cores(
    multiplications: int, device: torch.device, work: Callable[..., T], *arguments: Any
) -> T:
    """Run ``work(*arguments)`` on one core if its usual matrix product, of so many
    ``multiplications``, is too small for more; else, or on a GPU, as the calling thread would."""
    small = device.type == "cpu" and multiplications < WORTH_A_CORE
    if small and torch.get_num_threads() > 1:
        return run_on_one_core(work, *arguments)
    return work(*arguments)


@functools.cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Return the thread pool of a process; a forked process gets its own."""
    return ThreadPoolExecutor(8, "run_on_one_core", initializer=_take_one_core)


def _take_one_core() -> None:
    """Give this thread one core. In torch this changes the default of later threads too, so another
    thread restores the default, before the next one reads it."""
    with DEFAULT_THREADS:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        restorer = Thread(target=torch.set_num_threads, args=[before])
        restorer.start()
        restorer.join()
