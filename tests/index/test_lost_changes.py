"""A damaged write-ahead log of a killed writer takes no reported change away in silence."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from irgen.errors import IndexingError
from irgen.index.index import Index


@pytest.fixture
def killed(tmp_path: Path, small: SimpleNamespace) -> Path:
    """Return an index whose writer was killed after three changes: with a log."""
    folder = small.create(tmp_path / "index", ["a"])
    with Index.open(folder, writable=True) as index:
        for name in ("x", "y", "z"):
            index.add_encoded(ids=[name], metadata=small.metadata([name]), **small.images([name]))
        shutil.copytree(folder, tmp_path / "killed")
    return tmp_path / "killed"


def test_the_log_of_a_killed_writer_is_read(killed: Path) -> None:
    with Index.open(killed) as index:
        assert sorted(index.view.table["id"].to_list()) == ["a", "x", "y", "z"]


@pytest.mark.parametrize("writable", [False, True])
def test_a_flipped_bit_in_the_log_is_reported_with_the_number_of_lost_changes(
    killed: Path, writable: bool
) -> None:
    log = killed / "changes.sqlite-wal"
    content = bytearray(log.read_bytes())
    content[-10] ^= 4  # in the last page that the last change wrote
    log.write_bytes(content)
    with pytest.raises(IndexingError, match=r"of 3 changes the last 1 are lost.*delete .*reported"):
        Index.open(killed, writable=writable)
    (killed / "reported").unlink()
    with Index.open(killed) as index:
        assert sorted(index.view.table["id"].to_list()) == ["a", "x", "y"]


def test_a_log_that_is_missing_is_reported(killed: Path) -> None:
    (killed / "changes.sqlite-wal").unlink()
    with pytest.raises(IndexingError, match="of 3 changes the last 3 are lost"):
        Index.open(killed)


@pytest.mark.parametrize("content", [b"", b"9", b"00000000000000000009 00000000\n", b"\xff\xfe"])
def test_a_damaged_note_is_passed_over(killed: Path, content: bytes) -> None:
    (killed / "reported").write_bytes(content)
    with Index.open(killed) as index:
        assert len(index) == 4


def test_a_note_that_cannot_be_written_keeps_no_change_back(
    killed: Path, small: SimpleNamespace
) -> None:
    (killed / "reported").unlink()
    (killed / "reported").mkdir()
    with Index.open(killed, writable=True) as index:
        index.add_encoded(ids=["b"], metadata=small.metadata(["b"]), **small.images(["b"]))
        assert len(index) == 5
