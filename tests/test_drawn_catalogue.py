"""The drawn catalogue is read as any other, and does not change as it grows."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog.sources.open import open_source
from irgen.catalog.survey import Survey, survey_source
from irgen.params.sections import Download


@pytest.fixture(scope="module")
def draw(run_benchmark: Callable[..., str]) -> Callable[..., Path]:
    def run(target: Path, images: int, *options: object) -> Path:
        run_benchmark("drawn_catalogue", target, "--images", images, "--categories", 5, *options)
        return target

    return run


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., Path]) -> Path:
    return draw(tmp_path_factory.mktemp("drawn") / "drawn", 60, "--views", 4)


def look(path: Path) -> Survey:
    return survey_source(open_source(Download(source=str(path))))


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_categories_are_labels_and_objects_a_column(drawn: Path) -> None:
    survey, listed = look(drawn), look(drawn / "pictures.csv")
    assert list(survey.labels.values()) == [12] * 5
    assert listed.labels == survey.labels
    assert list(listed.columns) == ["object"]
    table = pl.read_csv(drawn / "pictures.csv")
    assert table["object"].n_unique() == 15
    assert set(table["object"].value_counts()["count"]) == {4}
    assert len(set(contents(drawn).values())) == 61


def test_a_smaller_catalogue_holds_the_same_pictures(
    drawn: Path, draw: Callable[..., Path], tmp_path: Path
) -> None:
    smaller = contents(draw(tmp_path / "smaller", 20, "--views", 4))
    smaller.pop("pictures.csv")
    assert len(smaller) == 20
    assert smaller.items() <= contents(drawn).items()
    other = contents(draw(tmp_path / "other", 20, "--views", 4, "--seed", 1))
    assert not set(other.values()) & set(contents(drawn).values())


def test_an_archive_holds_the_same_files(
    drawn: Path, draw: Callable[..., Path], tmp_path: Path
) -> None:
    target = draw(tmp_path / "drawn.tar", 60, "--views", 4, "--jobs", 1)
    with tarfile.open(target) as archive:
        packed = {name: archive.extractfile(name).read() for name in archive.getnames()}
    assert packed == contents(drawn)
    assert look(target).images == 60
