"""A tiny index, M = 3, L = 8, D = 8, whose images follow from their ids alone."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl
import pytest
import torch

from irgen.index import database
from irgen.index.index import Index
from irgen.index.view import View

D, M, L = 8, 3, 8
NAMES = ["a", "bb", "ccc", "dddd", "eeeee"]  # of a small index


def images(names: Iterable[str], version: int = 0) -> dict[str, Any]:
    """Embeddings and codes of images, another one for each id and version."""
    names = list(names)
    vectors = np.empty((len(names), D), np.float32)
    codes = np.empty((len(names), M), np.int64)
    for row, name in enumerate(names):
        random = np.random.default_rng([crc32(name.encode()), version])
        vectors[row] = random.standard_normal(D)
        codes[row] = random.integers(0, L, M)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {"embeddings": torch.from_numpy(vectors), "codes": torch.from_numpy(codes)}


def metadata(names: Iterable[str], version: int = 0) -> pl.DataFrame:
    """Return a label, which some images lack, and a price."""
    rows = [(None if len(n) % 3 == 0 else f"{n} v{version}", crc32(n.encode()) % 7) for n in names]
    return pl.DataFrame(rows, {"label": pl.String, "price": pl.Int32}, orient="row")


def create(folder: Path, names: Iterable[str], **changes: Any) -> Path:
    """Return a new index of these ids."""
    names = list(names)
    Index.create(
        folder,
        **{
            "models_writer": lambda base: (base / "weights").write_bytes(b"weights"),
            "config": {"made by": "a test"},
            "items": pl.DataFrame({"id": names}, {"id": pl.String}).hstack(metadata(names)),
            "codebooks": torch.arange(M * L * D).view(M, L, D).float().cos(),
            "trained": torch.tensor([len(n) % 2 == 0 for n in names], dtype=torch.bool),
            **images(names),
            **changes,
        },
    )
    return folder


def contents(index: Index | View) -> dict[str, tuple]:
    """Return the content of an index by id: code, bytes of the embedding, trained, and metadata."""
    view = index if isinstance(index, View) else index.view
    rows = view.snapshot.alive_rows()
    codes = view.snapshot.gather(rows, "codes").tolist()
    embeddings = view.snapshot.gather(rows, "embeddings").numpy()
    trained = view.snapshot.gather(rows, "trained").tolist()
    table = view.take(rows.numpy()).rows()
    assert len(view) == len({row[0] for row in table}) == len(table)
    return {
        name: (tuple(code), embedding.tobytes(), is_trained, tuple(about))
        for (name, *about), code, embedding, is_trained in zip(
            table, codes, embeddings, trained, strict=True
        )
    }


def expected(names: Iterable[str], version: int = 0, trained: bool | None = False) -> dict:
    """Return the ``contents`` of an index of the images made here; ``trained`` None: as ``create``
    sets it."""
    names = list(names)
    made = images(names, version)
    halves = made["embeddings"].half().numpy()
    about = metadata(names, version).rows()
    return {
        n: (tuple(c), e.tobytes(), len(n) % 2 == 0 if trained is None else trained, a)
        for n, c, e, a in zip(names, made["codes"].tolist(), halves, about, strict=True)
    }


def list_names(folder: Path) -> list[str]:
    """Return the names of what a folder holds, sorted."""
    return sorted(path.name for path in folder.iterdir())


def base_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of the base that counts."""
    (base,) = (folder / "base").iterdir()
    return {path.name: path.read_bytes() for path in sorted(base.iterdir())}


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """Return the functions above."""
    return SimpleNamespace(
        D=D,
        M=M,
        L=L,
        images=images,
        metadata=metadata,
        create=create,
        contents=contents,
        expected=expected,
        base_bytes=base_bytes,
    )


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(database, "SYNCHRONOUS", "OFF")


@pytest.fixture
def folder(tmp_path: Path, small: SimpleNamespace) -> Path:
    return small.create(tmp_path / "index", NAMES)


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    with Index.open(folder, writable=True) as opened:
        yield opened


@pytest.fixture
def add(small: SimpleNamespace) -> Callable[..., None]:
    """Add images as made here; ``put`` = upsert_encoded replaces them."""

    def do(index: Index, *names: str, version: int = 0, put: str = "add_encoded") -> None:
        given = {"metadata": small.metadata(names, version), **small.images(names, version)}
        getattr(index, put)(ids=names, **given)

    return do
