"""A project with a catalogue of small pictures, and indexes of them, good and bad, to release."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from irgen.catalog import manifest
from irgen.catalog.shards import ShardWriter
from irgen.catalog.table import write_table
from irgen.commands import cli
from irgen.files.workspace import Workspace
from irgen.params import Params, load

from ..tiny import picture

LABELS, PER_LABEL = 4, 8


def pictures(role: str, numbers: range) -> dict[str, bytes]:
    return {
        f"{role}-{label}-{number}": picture(label, number)
        for label in range(LABELS)
        for number in numbers
    }


DATABASE, QUERIES = pictures("image", range(PER_LABEL)), pictures("query", range(100, 103))


def table(images: dict[str, bytes], role: str) -> pl.DataFrame:
    """Return the catalogue's rows of images."""
    hashes = [hashlib.sha256(content).hexdigest() for content in images.values()]
    labels = [f"label {name.split('-')[1]}" for name in images]
    side = pl.lit(24, pl.Int32)
    columns = {"id": list(images), "path": list(images), "label": labels}
    columns |= {"role": [role] * len(images), "sha256": hashes}
    return pl.DataFrame(columns).with_columns(width=side, height=side).sort("id")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, make_index: Callable) -> Callable[..., Path]:
    """Return an index of the database, a different one for each ``number``. In a ``bad`` one each
    image has the embedding of another label. ``per_label``: images of each label."""
    folders: dict[tuple[int, bool, int], Path] = {}

    def get(number: int, *, bad: bool = False, per_label: int = PER_LABEL) -> Path:
        if (number, bad, per_label) not in folders:
            names = sorted(pictures("image", range(per_label)))
            contents = [DATABASE[name] for name in names]
            if bad:
                contents = contents[PER_LABEL:] + contents[:PER_LABEL]
            folder = tmp_path_factory.mktemp("bundle") / "index"
            search = {"beams": 600, "candidates": 60, "fresh_beams": 0}
            columns = table({name: DATABASE[name] for name in names}, "train").drop("role")
            make_index(folder, contents, columns, None, search=search, number=number)
            folders[number, bad, per_label] = folder
        return folders[number, bad, per_label]

    return get


@dataclass(frozen=True)
class Project:
    """A project's folder, and what its pipeline may put into it."""

    root: Path
    bundle: Callable[..., Path]

    @property
    def query(self) -> bytes:
        """Return an image to search with."""
        return QUERIES["query-1-100"]

    @property
    def store(self) -> Path:
        return self.root / "releases"

    @property
    def params(self) -> Params:
        return load(self.root / "params.yaml")

    def set(self, section: str, **values: Any) -> None:
        """Changes keys of params.yaml."""
        tree = yaml.safe_load((self.root / "params.yaml").read_text())
        tree[section] |= values
        (self.root / "params.yaml").write_text(yaml.safe_dump(tree))

    def builds(self, number: int, *, bad: bool = False, per_label: int = PER_LABEL) -> None:
        """Replace the pipeline's index by another one."""
        folder = self.root / "data" / "index"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.bundle(number, bad=bad, per_label=per_label), folder)

    def writes_database(self, per_label: int) -> None:
        """Write the catalogue's database anew."""
        path = Workspace.at(self.root).stage("catalog") / "database.parquet"
        write_table(path, table(pictures("image", range(per_label)), "train"))

    def champion(self) -> str:
        return (self.store / "champion").readlink().name

    def folders(self) -> list[str]:
        """List the names in the release store, without the lock."""
        return sorted(path.name for path in self.store.iterdir() if path.name != ".lock")


@pytest.fixture
def project(
    root: Path, tmp_path: Path, bundle: Callable, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Return a project whose pipeline has run, without a release or a model registry."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("IRGEN_BUILD", raising=False)
    project = Project(tmp_path / "project", bundle)
    workspace, listed = Workspace.at(project.root), []
    with ShardWriter(workspace.stage("download"), 1) as writer:
        for name, content in (DATABASE | QUERIES).items():
            shard, offset = writer.add(name, content)
            sha256 = hashlib.sha256(content).hexdigest()
            row = {"key": name, "size": len(content), "etag": "", "sha256": sha256, "revision": 1}
            listed.append(row | {"shard": shard, "offset": offset, "version": None})
    columns = pl.DataFrame(listed, schema_overrides=manifest.SCHEMA)
    manifest.write(workspace.stage("download"), columns, revision=7, source="test")
    write_table(workspace.stage("catalog") / "database.parquet", table(DATABASE, "train"))
    write_table(workspace.stage("catalog") / "queries.parquet", table(QUERIES, "query"))
    shutil.copyfile(root / "params.yaml", project.root / "params.yaml")
    project.set("compute", device="cpu", precision="fp32")
    project.set("evaluate", cutoffs=[1, 4])
    project.set("gate", metric="precision/4", margin=0.02, minimum=0.5)
    project.set("release", keep=2, remote="", model="")
    (project.root / "mlruns").mkdir()
    shutil.copyfile(empty_store, project.root / "mlruns" / "mlflow.db")
    project.builds(1)
    return project


@dataclass(frozen=True)
class Done:
    """Hold the exit status of a command, its output, and its output as JSON."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> dict[str, Any]:
        return json.loads(self.out)


@pytest.fixture
def irgen(project: Project, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run ``irgen`` on the project."""

    def command(*arguments: object) -> Done:
        capsys.readouterr()
        status = cli.main([*map(str, arguments), "--root", str(project.root)])
        return Done(status, *capsys.readouterr())

    return command


@pytest.fixture
def release(irgen: Callable[..., Done]) -> Callable[..., dict[str, Any]]:
    """Releases what the pipeline made, and gives what was said of it, with the exit ``status``."""

    def command(*options: str) -> dict[str, Any]:
        done = irgen("release", "--json", *options)
        assert done.status in (0, 3), done.err
        return done.said | {"status": done.status, "err": done.err}

    return command
