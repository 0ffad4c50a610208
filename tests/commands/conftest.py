"""A project with an index of forty small images, and the command line run in it."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from irgen.commands import cli
from irgen.index.index import Index
from irgen.search.calibration import Calibration

from ..small_index import CALIBRATION, NAMES


def make_metadata(names: list[str], contents: list[bytes]) -> pl.DataFrame:
    """Return the columns that the pipeline stores of images, and a price."""
    return pl.DataFrame(
        {
            "id": names,
            "path": names,
            "label": [name.split("/")[0] for name in names],
            "sha256": [hashlib.sha256(content).hexdigest() for content in contents],
            "width": [5] * len(names),
            "height": [6] * len(names),
            "price": range(len(names)),
        },
        schema_overrides={"width": pl.Int32, "height": pl.Int32, "price": pl.Int64},
    )


@pytest.fixture
def make_other_index(make_index: Callable, png: Callable) -> Callable[..., Path]:
    """Make another index of some of the images."""

    def make(
        folder: Path,
        numbers: Iterable[int],
        calibration: Calibration | None = CALIBRATION,
        names: Sequence[str] = NAMES,
    ) -> Path:
        chosen, contents = [names[n] for n in numbers], [png(n) for n in numbers]
        return make_index(folder, contents, make_metadata(chosen, contents), calibration)

    return make


@pytest.fixture(scope="session")
def made_project(tmp_path_factory, make_index: Callable, png: Callable) -> Path:
    """Make a project as the pipeline leaves it: its index in data/index, image i is ``png(i)``."""
    contents = [png(number) for number in range(len(NAMES))]
    folder = tmp_path_factory.mktemp("made")
    make_index(folder / "data" / "index", contents, make_metadata(NAMES, contents), CALIBRATION)
    return folder


@pytest.fixture
def project(
    made_project: Path, png: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a copy of ``made_project`` that a test may change, as the current folder. In
    ``photos`` are image 3, which is in the index, and 100 and 101, which are not."""
    folder = tmp_path / "project"
    shutil.copytree(made_project, folder)
    (folder / "photos").mkdir()
    for number in (3, 100, 101):
        (folder / "photos" / f"{number:03d}.png").write_bytes(png(number))
    monkeypatch.chdir(folder)
    return folder


@dataclass(frozen=True)
class Outcome:
    """Hold the exit status and the output of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``irgen`` with arguments."""

    def command(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = cli.main([str(each) for each in arguments])
        return Outcome(status, *capsys.readouterr())

    return command


@pytest.fixture
def run_ok(run: Callable[..., Outcome]) -> Callable[..., str]:
    """Run a command that must succeed, and return its output."""

    def command(*arguments: object) -> str:
        outcome = run(*arguments)
        assert outcome.status == 0, outcome.err
        return outcome.out

    return command


@pytest.fixture
def refused(run: Callable[..., Outcome], project: Path) -> Callable[..., str]:
    """Run a command that must be refused: status 2, one line on stderr, nothing on stdout, no
    change of files. Return the line."""

    def command(*arguments: object) -> str:
        before = files(project)
        outcome = run(*arguments)
        assert (outcome.status, outcome.out) == (2, ""), outcome
        (line,) = outcome.err.splitlines()
        assert line.startswith(f"irgen {arguments[0]}: ")
        assert files(project) == before
        return line

    return command


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; but who last held a lock does not count."""
    return {
        str(path.relative_to(folder)): b"" if path.name == "lock" else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".waiting.tmp"
    }


@pytest.fixture
def read_index() -> Callable[[Path], pl.DataFrame]:
    """Return a function that reads all rows of the index in a folder, sorted by id."""

    def table(folder: Path) -> pl.DataFrame:
        with Index.open(folder) as index:
            view = index.view
            return view.take(view.snapshot.alive_rows().numpy()).sort("id")

    return table
