"""Measure the index on the disk: created, opened cold, changed, filtered, searched meanwhile."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen import params
from irgen.checkpoints.models import Models, save_models
from irgen.checkpoints.weights import create_encoder
from irgen.index.hits import ImageHits
from irgen.index.index import Index
from irgen.index.view import View
from irgen.models.decoder import IdentifierDecoder
from irgen.models.retriever import QueryEncoder, Retriever
from irgen.models.tokenizer import Tokenizer
from irgen.search import engine
from irgen.search.engine import Options
from speed import ours, synthetic
from speed.ours import Pool
from speed.stopwatch import Call, Patience, Times, in_turns, once, repeat
from speed.synthetic import Database, Recipe

CHANGE = 1000  # images an add, a remove
ENCODER = {"name": "vit_tiny_patch16_224", "weights": "none", "image_size": 112, "options": {}}

OPENING = """
import json, sys, time
from irgen.index.index import Index
times = [time.perf_counter()]
index = Index.open(sys.argv[1])
times.append(time.perf_counter())
index.models
times.append(time.perf_counter())
Index.open(sys.argv[1])
times.append(time.perf_counter())
print(json.dumps(times))
"""


@dataclass(frozen=True)
class Loop:
    """The searches that are timed beside changes: one size of batch, one width."""

    pool: Pool
    batch: int
    beams: int

    def options(self, index: Index, allow: pl.Expr | None = None) -> Options:
        """The index's own, with the loop's beams."""
        return replace(index.options(1), beams=self.beams, allow=allow)

    def over(self, index: Index, allow: pl.Expr | None = None) -> Call:
        """Searches as anyone would make them, from what the models read to ids and scores."""

        def call(number: int) -> object:
            read = self.pool.read(number, self.batch)
            return index.search(read, ours.K, self.options(index, allow))

        return call

    def then(self, index: Index, view: View) -> Call:
        """The same in what the index held once."""
        snapshot, options = index.snapshot(view), self.options(index)

        def call(number: int) -> object:
            read = self.pool.read(number, self.batch)
            hits = engine.search(index.decoder, read, snapshot, ours.K, options)
            return ImageHits.of(hits, view, index.calibration)

        return call


def writer_of(model: IdentifierDecoder, codebooks: Tensor) -> Any:
    """A function that writes models with these codebooks and this decoder into a folder: the ones
    an index is really made with, a small vision transformer reading 112 × 112 pixels."""
    usual = params.load(Path(__file__).parents[2] / "params.yaml")
    encoder = replace(usual.encoder, channels=3, crop=1.0, **ENCODER)
    levels, size, width = codebooks.shape
    tokenizer = replace(
        usual.tokenizer, levels=levels, codebook=size, width=width, tune_encoder=False, hidden=0
    )
    settings = replace(
        usual.retriever,
        encoder="tokenizer",
        tune_encoder=False,
        width=ours.WIDTH,
        layers=len(model.blocks),
        heads=ours.HEADS,
        dropout=0.0,
    )

    def write(folder: Path) -> None:
        pretrained = create_encoder(encoder, seed=0)
        tokens = Tokenizer(tokenizer, pretrained.width, 2, None).eval()
        tokens.codebooks.copy_(codebooks)
        retriever = Retriever(QueryEncoder(pretrained, tokens.adapter), model)
        found = Models(
            tokenizer=tokens, retriever=retriever, pretrained=pretrained, labels=["a", "b"]
        )
        save_models(folder, found, encoder, tokenizer, settings)

    return write


@contextmanager
def bundle(database: Database, model: IdentifierDecoder, folder: Path) -> Iterator[float]:
    """An index of the database at ``folder`` while the block runs; gives the seconds it took."""
    count = len(database.codes)
    items = pl.DataFrame(
        {
            "id": [f"image-{row:08d}" for row in range(count)],
            "label": pl.Series(database.codes[:, 0].numpy()).cast(pl.String),
            "price": np.random.default_rng(0).random(count),
        }
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    seconds, _ = once(
        lambda: Index.create(
            folder,
            models_writer=writer_of(model, database.codebooks),
            config={},
            items=items,
            codebooks=database.codebooks,
            codes=database.codes,
            embeddings=torch.from_numpy(np.array(database.vectors)),
            trained=torch.ones(count, dtype=torch.bool),
        )
    )
    try:
        yield seconds
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def opening(folder: Path, times: int) -> dict[str, float]:
    """Seconds to open the index in a new process whose imports are done, with the folder's files
    put out of the system's cache (``cold``), and a second time (``warm``), slowest of ``times``;
    ``models``: to load the networks besides."""
    found = np.array([_open(folder) for _ in range(times)]).max(axis=0)
    return dict(zip(("cold", "models", "warm"), found.tolist(), strict=True))


def _open(folder: Path) -> np.ndarray:
    _evict(folder)
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    told = subprocess.run(
        [sys.executable, "-c", OPENING, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    return np.diff(json.loads(told.stdout.splitlines()[-1]))


def _evict(folder: Path) -> None:
    """Asks the system to forget what it has cached of the folder's files."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def filtering(index: Index, loop: Loop, patience: Patience) -> dict[str, float]:
    """ms a query of searches among 1 % of the images: by an expression that is ``new`` each time,
    by one that was ``remembered``, and among ``everything``."""
    price = pl.col("price")

    def new(number: int) -> object:
        low = 0.5 + 1e-6 * number
        return loop.over(index, price.is_between(low, low + 0.01))(number)

    calls = {
        "new": new,
        "remembered": loop.over(index, price < 0.01),
        "everything": loop.over(index),
    }
    times = in_turns(list(calls.values()), patience)
    return {
        name: found.milliseconds(loop.batch)["p50"]
        for name, found in zip(calls, times, strict=True)
    }


@dataclass(frozen=True)
class Newcomers:
    """Images to add, over and over under other names."""

    embeddings: Tensor  # (CHANGE, D)

    @classmethod
    def of(cls, recipe: Recipe) -> "Newcomers":
        """Of the kind the database is."""
        return cls(synthetic.newcomers(recipe, CHANGE))

    def ids(self, batch: str) -> list[str]:
        """Return the names of one batch."""
        return [f"{batch}-{i}" for i in range(len(self.embeddings))]

    def add(self, index: Index, batch: str) -> None:
        """Adds them; their codes are the tokenizer's business."""
        price = np.linspace(0, 1, len(self.embeddings))
        index.add_encoded(self.embeddings, self.ids(batch), pl.DataFrame({"price": price}))


def changing(index: Index, new: Newcomers, base: int, times: int) -> dict[str, Any]:
    """Seconds of adding and removing CHANGE images, so many times each; removed are images of the
    base and added ones in turns, and in the end all those added are gone."""
    adds, removes = [], []
    for number in range(times):
        adds.append(once(lambda number=number: new.add(index, f"new-{number}"))[0])  # type: ignore[misc]
    taken = min(CHANGE, base // 20)
    for number in range(times):
        names = new.ids(f"new-{number}")
        removes.append(once(lambda names=names: index.remove(names))[0])  # type: ignore[misc]
        old = [f"image-{row:08d}" for row in range(number * taken, (number + 1) * taken)]
        removes.append(once(lambda old=old: index.remove(old))[0])  # type: ignore[misc]
    return {"add": _summary(adds), "remove": _summary(removes)}


def adding_singly(index: Index, new: Newcomers, count: int) -> dict[str, float]:
    """Seconds of ``count`` adds of one image each: the median of the ``first`` and of the ``last``
    100 of them, of ``all`` together, and of the ``refresh`` after them."""
    seconds = []
    for number in range(count):
        row = number % len(new.embeddings)
        name, vector = [f"single-{number}"], new.embeddings[row : row + 1]
        seconds.append(once(lambda name=name, vector=vector: index.add_encoded(vector, name))[0])  # type: ignore[misc]
    part = max(1, min(100, count // 2))
    found = {"first": statistics.median(seconds[:part]), "last": statistics.median(seconds[-part:])}
    return found | {"count": count, "all": sum(seconds), "refresh": once(index.refresh)[0]}


def _summary(seconds: list[float]) -> dict[str, float]:
    return {"p50": statistics.median(seconds), "slowest": max(seconds), "times": len(seconds)}


def after_adding(
    index: Index, loop: Loop, new: Newcomers, patience: Patience, times: int
) -> dict[str, float]:
    """ms a query when ``times`` × CHANGE images have been added since the retriever was trained,
    which are looked for by their embeddings too, and before; they are gone again afterwards."""
    before = index.view
    for number in range(times):
        new.add(index, f"late-{number}")
    found, was = in_turns([loop.over(index), loop.then(index, before)], patience)
    for number in range(times):
        index.remove(new.ids(f"late-{number}"))
    return {
        "added": found.milliseconds(loop.batch)["p50"],
        "before": was.milliseconds(loop.batch)["p50"],
    }


def concurrent(
    index: Index, loop: Loop, new: Newcomers, patience: Patience, every: float, rounds: int
) -> dict[str, Any]:
    """ms a query of searches while another thread adds CHANGE images and removes them again once
    every ``every`` seconds, and while nothing else goes on: ``rounds`` of both in turns. ``late``:
    the share of changes that began later than they should because the one before took so long."""
    quiet: list[float] = []
    busy: list[float] = []
    late: list[bool] = []

    search = loop.over(index)
    for turn in range(rounds):
        quiet += repeat(search, patience).seconds
        with _changes(index, new, every, turn) as late_ones:
            busy += repeat(search, patience).seconds
        late += late_ones
    found = {
        "quiet": Times(tuple(quiet)).milliseconds(loop.batch),
        "busy": Times(tuple(busy)).milliseconds(loop.batch),
    }
    return found | {"changes": 2 * len(late), "late": sum(late) / max(1, len(late))}


@contextmanager
def _changes(index: Index, new: Newcomers, every: float, turn: int) -> Iterator[list[bool]]:
    """Changes in a thread of its own while the block runs; tells which were late."""
    done, late, failed = threading.Event(), [], []

    def change() -> None:
        due, number = time.perf_counter(), 0
        try:
            while not done.is_set():
                late.append(time.perf_counter() > due + every)
                new.add(index, f"turn-{turn}-{number}")
                index.remove(new.ids(f"turn-{turn}-{number}"))
                due, number = due + every, number + 1
                done.wait(max(0.0, due - time.perf_counter()))
        except Exception as error:  # told by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield late
    finally:
        done.set()
        thread.join()
    if failed:
        raise failed[0]
