"""A folder of cats, dogs and an owl, and the catalogue that the stage makes of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog.table import NAMES, read_table
from irgen.files.workspace import Workspace
from irgen.params import Params, load
from irgen.stages import catalog, download

Png = Callable[[int], bytes]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "project")


@pytest.fixture
def params(root: Path) -> Callable[..., Params]:
    plain = load(root / "params.yaml")
    usual = {"query_fraction": 0.25, "validation_fraction": 0.2}

    def of(source: object, **changes: object) -> Params:
        return dataclasses.replace(
            plain,
            download=dataclasses.replace(plain.download, source=str(source)),
            catalog=dataclasses.replace(plain.catalog, **(usual | changes)),
        )

    return of


@pytest.fixture
def shop(tmp_path: Path, png: Png) -> Path:
    """Twenty cats, eight dogs, one owl, an empty class, and a broken cat."""
    sizes = {"cat": 20, "dog": 8, "owl": 1, "emu": 0}
    for start, (label, size) in enumerate(sizes.items()):
        (tmp_path / "shop" / label).mkdir(parents=True)
        for i in range(size):
            (tmp_path / "shop" / label / f"{i:02d}.png").write_bytes(png(start * 100 + i))
    (tmp_path / "shop" / "cat" / "99.png").write_bytes(b"no")
    return tmp_path / "shop"


def no_log(metrics: dict[str, float], step: int) -> None:
    raise AssertionError("nothing has steps here")


def run(params: Params, workspace: Workspace) -> dict[str, float]:
    download.run(params, workspace, no_log)
    return catalog.run(params, workspace, no_log)


def tables(workspace: Workspace) -> dict[str, pl.DataFrame]:
    return {name: read_table(workspace.stage("catalog") / f"{name}.parquet") for name in NAMES}


def rejected(workspace: Workspace) -> list[tuple]:
    return pl.read_parquet(workspace.stage("catalog") / "rejected.parquet").rows()
