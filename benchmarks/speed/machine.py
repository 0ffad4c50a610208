"""Describe a run of the benchmark of the index: the machine, the versions and the models."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import faiss
import torch

from irgen.evaluation.latency import name_processor
from irgen.files.workspace import git
from speed import generative
from speed.synthetic import Recipe


def describe_run(started: float, layers: int, recipe: Recipe) -> dict[str, Any]:
    """Return the processor, the versions, the commit, the models and the duration."""
    commit = git(Path(__file__).parent, "rev-parse", "--short", "HEAD") or "unknown"
    seconds = time.perf_counter() - started
    name = name_processor(torch.device("cpu"))
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    text = (
        f"{name}, {cores} cores, {threads} threads (torch and faiss alike), "
        f"{torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}, faiss "
        f"{faiss.__version__}, Python {platform.python_version()}; commit {commit}; the whole run "
        f"took {seconds / 60:.1f} minutes (without what earlier runs stored). Decoder: "
        f"{layers} layers, width {generative.WIDTH}, {generative.HEADS} heads, "
        f"{generative.TOKENS} image tokens of width {generative.TOKEN_WIDTH}, random weights; "
        f"vectors of {recipe.width} dimensions; precision fp32 unless a row names another."
    )
    return {"text": text, "commit": commit, "processor": name, "threads": threads}
