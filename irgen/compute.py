"""Set device, precision, determinism and memory of a process's computations."""

import ctypes
import functools
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from irgen.errors import NumberError, ParamsError
from irgen.params import Compute

T = TypeVar("T")
MANY = 10  # different images that an encoder never gives one and the same vector
DEFAULT_THREADS = Lock()  # held while torch's default of threads is not the user's


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Device of a stage and its autocast type (None: plain fp32)."""

    device: torch.device
    autocast: torch.dtype | None

    def precision(self) -> AbstractContextManager:
        """Return a context in which matrix products run in the chosen precision."""
        return torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)

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
    device = _device(settings.device)
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return Machine(device=device, autocast=torch.bfloat16 if precision == "bf16" else None)


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


def seed_everything(*parts: int) -> torch.Generator:
    """Seed torch and random from ``parts`` and return a CPU generator of its own.

    Called at the start of each round with (seed, step), so that a resumed run needs no generator
    state.
    """
    generator = seeded_generator(*parts)
    random.seed(generator.initial_seed())
    torch.manual_seed(generator.initial_seed())
    return generator


def seeded_generator(*parts: int) -> torch.Generator:
    """Return a CPU generator seeded from ``parts``."""
    seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
    return torch.Generator().manual_seed(seed)


def check_finite(values: torch.Tensor, what: str, remedy: str) -> None:
    """Raise NumberError, naming ``what`` these values are, if one of them is NaN or infinite."""
    if values.is_floating_point() and not bool(values.isfinite().all()):
        wrong = int((~values.isfinite()).sum())
        raise NumberError(
            f"{what}: {wrong:,} of {values.numel():,} numbers are not finite; {remedy}"
        )


def check_spread(vectors: torch.Tensor, what: str, remedy: str) -> None:
    """Raise NumberError, naming ``what`` these vectors (N, D) are, if there are MANY or more and
    all are the same, or if all are zero: then no search can tell images apart."""
    if len(vectors) and not bool(vectors.any()):
        raise NumberError(f"{what}: all of {len(vectors):,} vectors are zero; {remedy}")
    if len(vectors) >= MANY and bool((vectors == vectors[0]).all()):
        raise NumberError(f"{what}: all of {len(vectors):,} vectors are the same; {remedy}")


def full_batches(count: int, size: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield rows 0 … count − 1 in batches of exactly ``size``, and how many of each are new.

    The last batch is filled up with its last row, so that a row's result never depends on the
    number of rows.
    """
    for start in range(0, count, size):
        rows = torch.arange(start, start + size).clamp_max(count - 1)
        yield rows, min(size, count - start)
