"""The project's own index: made once, opened by one writer at a time."""

import shutil
import threading
from pathlib import Path

import polars as pl
import pytest

from irgen.errors import IndexingError
from irgen.releases import own_index


@pytest.fixture
def project(tmp_path: Path, make_index, png) -> Path:
    """Return a project whose pipeline has made an index of three images."""
    items = pl.DataFrame({"id": ["a", "b", "c"]})
    make_index(tmp_path / "data" / "index", [png(n) for n in range(3)], items, None)
    return tmp_path


def test_the_first_writer_makes_the_index_and_later_ones_open_it(project, png):
    assert own_index.default_folder(project) == project / "data" / "index"
    with own_index.open_writer(project) as index:
        index.add([png(7)], ["new"])
    assert own_index.default_folder(project) == project / "index"
    with own_index.open_writer(project) as index:
        assert len(index) == 4


def test_writers_that_start_together_get_one_index_one_after_the_other(project, png):
    def add(number: int) -> None:
        with own_index.open_writer(project, wait=60) as index:
            index.add([png(number)], [str(number)])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(10, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with own_index.open_writer(project) as index:
        assert len(index) == 8


def test_a_writer_does_not_wait_longer_than_it_was_told(project):
    with (
        own_index.open_writer(project),
        pytest.raises(IndexingError, match="has a writer already"),
    ):
        own_index.open_writer(project, wait=0.2)


def test_without_an_index_there_is_nothing_to_copy(project):
    shutil.rmtree(project / "data" / "index")
    with pytest.raises(IndexingError, match="there is no index at"):
        own_index.open_writer(project)
