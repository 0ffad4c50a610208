"""Time encoders on this machine, and describe the machine."""

import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irgen.compute.batches import full_batches
from irgen.compute.machine import Machine

TIMED_BATCHES = 2
BF16_FLAGS = ("amx_bf16", "avx512_bf16")  # of a CPU, the faster first


@torch.inference_mode()
def time_encoder(
    encode: Callable[[Tensor], Any], images: np.ndarray, size: int, machine: Machine
) -> float:
    """Return the median milliseconds a query over the first TIMED_BATCHES batches of ``images``
    (Q, C, H, H) uint8. Decoding files is not included. The first call does not count."""
    batches = [rows for rows, _ in full_batches(len(images), size)][:TIMED_BATCHES]
    times = []
    for rows in [batches[0], *batches]:
        pixels = torch.from_numpy(images[rows.numpy()]).to(machine.device)
        started = now(machine)
        with machine.precision():
            encode(pixels)
        times.append(1000 * (now(machine) - started) / size)
    return statistics.median(times[1:])


def now(machine: Machine) -> float:
    """Return seconds on a clock, after the device has finished its work."""
    if machine.device.type == "cuda":
        torch.cuda.synchronize(machine.device)
    return time.perf_counter()


def describe_machine(machine: Machine, batch_size: int) -> dict[str, str | int]:
    """Return the facts that the times depend on, besides the models."""
    return {
        "device": str(machine.device),
        "autocast": str(machine.autocast),
        "threads": torch.get_num_threads(),
        "processor": name_processor(machine.device),
        "batch_size": batch_size,
    }


def name_processor(device: torch.device) -> str:
    """Return the name of the GPU, or of the CPU with the instructions that make bf16 fast, if it
    has any."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    cpu = dict(re.findall(r"^(model name|flags)\s*: (.*)$", text, flags=re.MULTILINE))
    fast = [flag for flag in BF16_FLAGS if flag in cpu.get("flags", "").split()]
    return " with ".join([cpu.get("model name", name), *fast[:1]])
