"""A writer is killed at any moment: what it acknowledged is there, and nothing is half there."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import polars as pl
import pytest
import torch

from irgen.index.index import Index

SCRIPT = Path(__file__).with_name("killed_writer.py")
SEEDS, LIVES = (1, 2, 3), 40


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    """What the writer does, as a module."""
    spec = importlib.util.spec_from_file_location("killed_writer", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen]:
    """The program that forks writers."""
    settings = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
    ) as running:
        assert running.stdin
        assert running.stdout
        assert running.stdout.readline() == "ready\n"
        yield running
        running.stdin.close()


def live_and_die(
    program: subprocess.Popen, seed: int, first: int, folder: Path, seconds: float
) -> int:
    """Lets a writer go on for a while, kills it, and counts what has been acknowledged so far."""
    notes = folder.with_name("notes")
    program.stdin.write(f"{seed} {first} {folder}\n")
    program.stdin.flush()
    process = int(program.stdout.readline())
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    assert int(program.stdout.readline()) == signal.SIGKILL, "it was to go on until it was killed"
    noted = notes.read_text().split() if notes.exists() else []
    return int(noted[-1]) + 1 if noted else 0


def table(alive: dict[str, int], small: SimpleNamespace) -> dict:
    """What ``contents`` should say of the versions alive."""
    return {name: small.expected([name], version)[name] for name, version in alive.items()}


def fresh(folder: Path, alive: dict[str, int], small: SimpleNamespace) -> Path:
    """A new index of the versions alive."""
    names = list(alive)
    made = [small.images([n], alive[n]) for n in names]
    about = [small.metadata([]), *(small.metadata([n], alive[n]) for n in names)]
    return small.create(
        folder,
        names,
        items=pl.DataFrame({"id": names}, {"id": pl.String}).hstack(pl.concat(about)),
        trained=torch.zeros(len(names), dtype=torch.bool),
        embeddings=torch.cat([torch.empty(0, small.D), *(m["embeddings"] for m in made)]),
        codes=torch.cat([torch.empty(0, small.M).long(), *(m["codes"] for m in made)]),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_killed_writer_acknowledged_is_there_and_at_most_what_it_was_at(
    tmp_path: Path, writer: ModuleType, program: subprocess.Popen, small, seed: int
) -> None:
    folder = small.create(tmp_path / "index", [])
    states: list[dict[str, int]] = [{}]  # before each operation
    done, struck, chance = 0, Counter[str](), random.Random(seed)
    for life in range(LIVES):
        acknowledged = live_and_die(program, seed, done, folder, chance.uniform(0, 0.2))
        for number in range(len(states) - 1, max(acknowledged, done) + 1):
            step = writer.operation(seed, number, states[number])
            states.append(writer.after(states[number], number, *step))
        done = max(acknowledged, done)
        at = writer.operation(seed, done, states[done])[0]
        struck[at] += 1
        with Index.open(folder) as reader:  # before any writer has tidied up
            found = small.contents(reader)
            reader.verify()
        assert found in (table(states[done], small), table(states[done + 1], small))
        for saved in tmp_path.glob("saved *"):
            number = int(saved.name.split()[1])
            with Index.open(saved) as copy:
                assert small.contents(copy) == table(states[number], small)
            (tmp_path / "checked").mkdir(exist_ok=True)
            saved.rename(tmp_path / "checked" / f"{life} {number}")
        with Index.open(folder, writable=True) as index:
            assert small.contents(index) == found
            if life % 8 == 7:
                index.compact()
                assert small.contents(index) == found
        if found == table(states[done + 1], small):
            done += 1
    assert done > LIVES, "the writers got something done"
    assert len(struck) > 2, f"they were killed at different operations, not only at {struck}"
    with Index.open(folder, writable=True) as index:
        index.compact()
    whole = fresh(tmp_path / "fresh", states[done], small)
    assert small.generation_bytes(folder) == small.generation_bytes(whole)
