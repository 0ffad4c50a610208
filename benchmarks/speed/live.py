"""Measure the index on disk: create it, open it cold, change it, filter it, search it meanwhile."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
from speed import generative, synthetic
from speed.generative import QueryPool
from speed.stopwatch import Repeats, TimedCall, Times, time_interleaved, time_once, time_repeats
from speed.synthetic import Database, Recipe

CHANGE = 1000  # images that one call adds or removes
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
class SearchSettings:
    """Describe the timed searches of an index: their queries, batch size and beams."""

    pool: QueryPool
    batch: int
    beams: int

    def options(self, index: Index, allow: pl.Expr | None = None) -> Options:
        """Return the index's own options with these beams and this filter."""
        return replace(index.options(1), beams=self.beams, allow=allow)

    def make_search(self, index: Index, allow: pl.Expr | None = None) -> TimedCall:
        """Return a call that searches as users do, from query features to ids and scores."""

        def call(number: int) -> object:
            features = self.pool.batch(number, self.batch)
            return index.search(features, generative.K, self.options(index, allow))

        return call

    def make_view_search(self, index: Index, view: View) -> TimedCall:
        """Return a call that does the same in an earlier view of the index."""
        snapshot, options = index.snapshot(view), self.options(index)

        def call(number: int) -> object:
            features = self.pool.batch(number, self.batch)
            hits = engine.search(index.decoder, features, snapshot, generative.K, options)
            return ImageHits.of(hits, view, hits.scores)

        return call


def make_models_writer(model: IdentifierDecoder, codebooks: Tensor) -> Callable[[Path], None]:
    """Return a function that writes models with these codebooks and this decoder to a folder. Their
    encoder is a small vision transformer for images of 112 × 112 pixels."""
    default = params.load(Path(__file__).parents[2] / "params.yaml")
    encoder = replace(default.encoder, channels=3, crop=1.0, **ENCODER)
    levels, size, width = codebooks.shape
    tokenizer = replace(
        default.tokenizer, levels=levels, codebook=size, width=width, tune_encoder=False, hidden=0
    )
    settings = replace(
        default.retriever,
        encoder="tokenizer",
        tune_encoder=False,
        width=generative.WIDTH,
        layers=len(model.blocks),
        heads=generative.HEADS,
        dropout=0.0,
    )

    def write(folder: Path) -> None:
        pretrained = create_encoder(encoder, seed=0)
        trained = Tokenizer(tokenizer, pretrained.width, 2, None).eval()
        trained.codebooks.copy_(codebooks)
        retriever = Retriever(QueryEncoder(pretrained, trained.adapter), model)
        models = Models(
            tokenizer=trained, retriever=retriever, pretrained=pretrained, labels=["a", "b"]
        )
        save_models(folder, models, encoder, tokenizer, settings)

    return write


@contextmanager
def create_index(database: Database, model: IdentifierDecoder, folder: Path) -> Iterator[float]:
    """Create an index of the database at ``folder``; yield the seconds it took. The index is
    deleted after the block."""
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
    seconds, _ = time_once(
        lambda: Index.create(
            folder,
            models_writer=make_models_writer(model, database.codebooks),
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


def measure_opening(folder: Path, times: int) -> dict[str, float]:
    """Return the seconds to open the index in a new process, without its imports, slowest of
    ``times``: ``cold``, when the system has none of its files cached; ``models``, to load the
    networks after that; ``warm``, to open it again."""
    slowest = np.array([_open(folder) for _ in range(times)]).max(axis=0)
    return dict(zip(("cold", "models", "warm"), slowest.tolist(), strict=True))


def _open(folder: Path) -> np.ndarray:
    _evict(folder)
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    finished = subprocess.run(
        [sys.executable, "-c", OPENING, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    return np.diff(json.loads(finished.stdout.splitlines()[-1]))


def _evict(folder: Path) -> None:
    """Ask the system to drop the folder's files from its cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def measure_filters(index: Index, settings: SearchSettings, repeats: Repeats) -> dict[str, float]:
    """Return ms a query of searches among 1 % of the images, with a filter that is ``new`` each
    time and with one that is ``remembered``, and among ``everything``."""
    price = pl.col("price")

    def search_with_new_filter(number: int) -> object:
        low = 0.5 + 1e-6 * number
        return settings.make_search(index, price.is_between(low, low + 0.01))(number)

    calls = {
        "new": search_with_new_filter,
        "remembered": settings.make_search(index, price < 0.01),
        "everything": settings.make_search(index),
    }
    times = time_interleaved(list(calls.values()), repeats)
    return {
        name: measured.milliseconds(settings.batch)["p50"]
        for name, measured in zip(calls, times, strict=True)
    }


@dataclass(frozen=True)
class NewImages:
    """Hold encoded images that are added again and again under other ids."""

    embeddings: Tensor  # (CHANGE, D)

    @classmethod
    def draw(cls, recipe: Recipe) -> "NewImages":
        """Draw CHANGE images of the database's distribution."""
        return cls(synthetic.draw_new_images(recipe, CHANGE))

    def ids(self, batch: str) -> list[str]:
        """Return the ids of one batch."""
        return [f"{batch}-{i}" for i in range(len(self.embeddings))]

    def add(self, index: Index, batch: str) -> None:
        """Add the images to the index, whose tokenizer gives them codes."""
        price = np.linspace(0, 1, len(self.embeddings))
        index.add_encoded(self.embeddings, self.ids(batch), pl.DataFrame({"price": price}))


def measure_changes(
    index: Index, new_images: NewImages, base_count: int, times: int
) -> dict[str, Any]:
    """Return the seconds of ``times`` additions of CHANGE images and of as many removals of these.
    Between the removals, a part of the ``base_count`` original images is removed too."""
    adds, removes = [], []
    for number in range(times):
        adds.append(time_once(lambda number=number: new_images.add(index, f"new-{number}"))[0])  # type: ignore[misc]
    base_part = min(CHANGE, base_count // 20)
    for number in range(times):
        ids = new_images.ids(f"new-{number}")
        removes.append(time_once(lambda ids=ids: index.remove(ids))[0])  # type: ignore[misc]
        rows = range(number * base_part, (number + 1) * base_part)
        ids = [f"image-{row:08d}" for row in rows]
        removes.append(time_once(lambda ids=ids: index.remove(ids))[0])  # type: ignore[misc]
    return {"add": _summarise(adds), "remove": _summarise(removes)}


def measure_single_adds(index: Index, new_images: NewImages, count: int) -> dict[str, float]:
    """Return the seconds of ``count`` additions of one image each: the median of the ``first`` and
    of the ``last`` 100, the sum of ``all``, and the ``refresh`` after them."""
    seconds = []
    for number in range(count):
        row = number % len(new_images.embeddings)
        ids, vector = [f"single-{number}"], new_images.embeddings[row : row + 1]
        seconds.append(time_once(lambda ids=ids, vector=vector: index.add_encoded(vector, ids))[0])  # type: ignore[misc]
    part = max(1, min(100, count // 2))
    first, last = statistics.median(seconds[:part]), statistics.median(seconds[-part:])
    refresh, _ = time_once(index.refresh)
    return {"first": first, "last": last, "count": count, "all": sum(seconds), "refresh": refresh}


def _summarise(seconds: list[float]) -> dict[str, float]:
    return {"p50": statistics.median(seconds), "slowest": max(seconds), "times": len(seconds)}


def measure_after_adding(
    index: Index, settings: SearchSettings, new_images: NewImages, repeats: Repeats, times: int
) -> dict[str, float]:
    """Return ms a query ``before`` and after ``times`` × CHANGE images are ``added``, which the
    retriever was not trained on, so that their embeddings are searched too. Remove them again."""
    view_before = index.view
    for number in range(times):
        new_images.add(index, f"late-{number}")
    calls = [settings.make_search(index), settings.make_view_search(index, view_before)]
    added, before = time_interleaved(calls, repeats)
    for number in range(times):
        index.remove(new_images.ids(f"late-{number}"))
    return {
        "added": added.milliseconds(settings.batch)["p50"],
        "before": before.milliseconds(settings.batch)["p50"],
    }


def measure_during_changes(
    index: Index,
    settings: SearchSettings,
    new_images: NewImages,
    repeats: Repeats,
    every: float,
    rounds: int,
) -> dict[str, Any]:
    """Return ms a query while another thread adds CHANGE images and removes them again every
    ``every`` seconds (``busy``), and while the index does nothing else (``quiet``); ``rounds`` of
    both take turns. ``late``: the share of changes that began late because the one before still
    ran."""
    quiet: list[float] = []
    busy: list[float] = []
    late: list[bool] = []

    search = settings.make_search(index)
    for number in range(rounds):
        quiet += time_repeats(search, repeats).seconds
        with _change_meanwhile(index, new_images, every, number) as round_late:
            busy += time_repeats(search, repeats).seconds
        late += round_late
    return {
        "quiet": Times(tuple(quiet)).milliseconds(settings.batch),
        "busy": Times(tuple(busy)).milliseconds(settings.batch),
        "changes": 2 * len(late),
        "late": sum(late) / max(1, len(late)),
    }


@contextmanager
def _change_meanwhile(
    index: Index, new_images: NewImages, every: float, round_number: int
) -> Iterator[list[bool]]:
    """Change the index in another thread while the block runs; yield the list that tells of each
    change whether it began late. Raise the thread's error after the block."""
    done, late, failed = threading.Event(), [], []

    def change() -> None:
        due, number = time.perf_counter(), 0
        try:
            while not done.is_set():
                late.append(time.perf_counter() > due + every)
                name = f"round-{round_number}-{number}"
                new_images.add(index, name)
                index.remove(new_images.ids(name))
                due, number = due + every, number + 1
                done.wait(max(0.0, due - time.perf_counter()))
        except Exception as error:  # raised by the thread that waits
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
