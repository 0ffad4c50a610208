"""Miniatures of published sets, through download and catalog as a user's are."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from irgen.catalog.table import NAMES, read_table
from irgen.files.records import read_json
from irgen.files.workspace import Workspace
from irgen.params import load
from irgen.stages import catalog, download


@dataclass(frozen=True)
class Catalogued:
    """Hold the results of the catalog stage: tables, protocol.json, metrics and rejected keys."""

    tables: dict[str, pl.DataFrame]
    about: dict
    metrics: dict[str, float]
    rejected: list[tuple[str, str]]

    def ids(self, name: str) -> list[str]:
        return self.tables[name]["id"].to_list()

    def labels(self, name: str) -> set[str]:
        return set(self.tables[name]["label"])


def picture(number: int) -> bytes:
    """Return a different JPEG for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write({path: content})`` below a folder; None as content is a picture of its own."""

    def make(contents: Mapping[str, bytes | str | None], name: str = "source") -> Path:
        for number, (path, content) in enumerate(contents.items()):
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(
                picture(number)
                if content is None
                else content.encode()
                if isinstance(content, str)
                else content
            )
        return tmp_path / name

    return make


@pytest.fixture
def catalogued(root: Path, tmp_path: Path) -> Callable[..., Catalogued]:
    """``catalogued(source, protocol=…)`` runs download and catalog, without validation images;
    ``teaching`` is ``tokenizer.labels``."""
    plain = load(root / "params.yaml")

    def run(source: Path, teaching: str = "given", **changes: object) -> Catalogued:
        workspace = Workspace.at(tmp_path / "project")
        settings = {"validation_fraction": 0.0, **changes}
        params = replace(
            plain,
            download=replace(plain.download, source=str(source)),
            catalog=replace(plain.catalog, **settings),
            tokenizer=replace(plain.tokenizer, labels=teaching),
        )
        download.run(params, workspace, lambda metrics, step: None)
        metrics = catalog.run(params, workspace, lambda metrics, step: None)
        folder = workspace.stage("catalog")
        return Catalogued(
            tables={name: read_table(folder / f"{name}.parquet") for name in NAMES},
            about=read_json(folder / "protocol.json"),
            metrics=metrics,
            rejected=pl.read_parquet(folder / "rejected.parquet").rows(),
        )

    return run
