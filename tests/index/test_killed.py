"""A writer is ended at any moment: what it acknowledged is there, and nothing is half there."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch

from irgen.index.index import Index
from irgen.index.view import View

from .. import forking_program
from . import killed_writer

SCRIPT = Path(killed_writer.__file__)
LIVES = 30
ENDS = [(1, signal.SIGKILL), (2, signal.SIGKILL), (3, signal.SIGINT)]


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen]:
    """Start the program that forks writers."""
    with forking_program.start(SCRIPT) as running:
        yield running


def live_and_die(
    program: subprocess.Popen, start: str, reader: Index, how: signal.Signals, seconds: float
) -> list[View]:
    """Let a writer run for a while, every second one until it has done something, and end it by a
    signal; return what a reader saw meanwhile."""
    notes = reader.folder.path.with_name("notes")
    before, patient = count_acknowledged(notes), int(1000 * seconds) % 2
    program.stdin.write(f"{start}\n")
    program.stdin.flush()
    process, seen = int(program.stdout.readline()), []
    end = time.monotonic() + seconds
    while time.monotonic() < end or (patient and count_acknowledged(notes) == before):
        reader.refresh()
        seen.append(reader.view)
    os.kill(process, how)
    expected = signal.SIGKILL if how == signal.SIGKILL else 130 << 8
    assert int(program.stdout.readline()) == expected, "it was to go on until it was ended"
    return seen


def count_acknowledged(notes: Path) -> int:
    """Count the operations that have returned."""
    noted = notes.read_text().split() if notes.exists() else []
    return int(noted[-1]) + 1 if noted else 0


def table(alive: dict[str, int], small: SimpleNamespace) -> dict:
    """Return the expected ``contents`` for the versions that are alive."""
    return {name: small.expected([name], version)[name] for name, version in alive.items()}


def fresh(folder: Path, alive: dict[str, int], small: SimpleNamespace) -> Path:
    """Return a new index of the versions that are alive."""
    names = list(alive)
    encoded = [small.images([n], alive[n]) for n in names]
    metadata = [small.metadata([]), *(small.metadata([n], alive[n]) for n in names)]
    return small.create(
        folder,
        names,
        items=pl.DataFrame({"id": names}, {"id": pl.String}).hstack(pl.concat(metadata)),
        trained=torch.zeros(len(names), dtype=torch.bool),
        embeddings=torch.cat([torch.empty(0, small.D), *(m["embeddings"] for m in encoded)]),
        codes=torch.cat([torch.empty(0, small.M).long(), *(m["codes"] for m in encoded)]),
    )


@pytest.mark.parametrize(("seed", "how"), ENDS)
def test_what_an_ended_writer_acknowledged_is_there_and_nobody_saw_what_is_not(
    tmp_path: Path, program: subprocess.Popen, small, seed: int, how
) -> None:
    folder = small.create(tmp_path / "index", [])
    states: list[dict[str, int]] = [{}]  # before each operation
    done, last_seen, struck, chance = 0, 0, Counter[str](), random.Random(seed)
    reader = Index.open(folder)
    for life in range(LIVES):
        start, seconds = f"{seed} {done} {folder}", chance.uniform(0, 0.2)
        seen = live_and_die(program, start, reader, how, seconds)
        acknowledged = count_acknowledged(tmp_path / "notes")
        for number in range(len(states) - 1, max(acknowledged, done) + 1):
            step = killed_writer.operation(seed, number, states[number])
            states.append(killed_writer.after(states[number], number, *step))
        done = max(acknowledged, done)
        struck[killed_writer.operation(seed, done, states[done])[0]] += 1
        with Index.open(folder) as opened:  # before any writer has tidied up
            contents = small.contents(opened)
            opened.verify()
        assert contents in (table(states[done], small), table(states[done + 1], small))
        done += contents != table(states[done], small)
        for view in {id(view): view for view in seen}.values():
            content = small.contents(view)
            at = (i for i in range(last_seen, done + 1) if table(states[i], small) == content)
            last_seen = next(at, -1)
            assert last_seen >= 0, "the reader saw what was taken back, or went back itself"
        check_saved(tmp_path, life, states, small)
        with Index.open(folder, writable=True) as index:
            assert small.contents(index) == contents
            if life % 8 == 7:
                index.compact()
                assert small.contents(index) == contents
        reader.refresh()
        assert small.contents(reader) == contents
    reader.close()
    assert done > LIVES / 4, "the writers got something done"
    assert len(struck) > 2, f"they were ended at different operations, not only at {struck}"
    with Index.open(folder, writable=True) as index:
        index.compact()
    whole = fresh(tmp_path / "fresh", states[done], small)
    assert small.base_bytes(folder) == small.base_bytes(whole)


def check_saved(home: Path, life: int, states: list[dict[str, int]], small) -> None:
    """Check that each interrupted copy is complete or absent."""
    (home / "checked").mkdir(exist_ok=True)
    for saved in home.glob("saved *"):
        number = int(saved.name.split()[1])
        with Index.open(saved) as copy:
            assert small.contents(copy) == table(states[number], small)
        saved.rename(home / "checked" / f"{life} {number}")
