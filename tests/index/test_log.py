"""The log: what was acknowledged is read again, whatever happens to its end."""

import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.errors import IndexingError
from irgen.index import log
from irgen.index.log import Log

OWNER = b"a generation's 16"[:16]
PAYLOADS = [b"first", b"", b"third, which is longer \xa9rec than the others" * 3]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "1.log"
    path.write_bytes(log.contents(OWNER)[0])
    opened = Log(path, log.beginning(OWNER))
    for payload in PAYLOADS:
        opened.append(payload)
    opened.close()
    return path


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_a_log_written_at_once_is_what_appending_makes(tmp_path_factory, payloads) -> None:
    path = tmp_path_factory.mktemp("log") / "1.log"
    path.write_bytes(log.contents(OWNER)[0])
    opened = Log(path, log.beginning(OWNER))
    for payload in payloads:
        opened.append(payload)
    assert (path.read_bytes(), opened.position) == log.contents(OWNER, payloads)
    assert log.read(path, OWNER) == (payloads, opened.position)
    opened.close()


def test_reading_goes_on_from_where_it_stopped(written: Path) -> None:
    _, position = log.contents(OWNER, PAYLOADS[:1])
    found, end = log.read(written, OWNER, position)
    assert found == PAYLOADS[1:]
    assert end.offset == written.stat().st_size
    assert log.read(written, OWNER, end) == ([], end)


def test_a_torn_tail_of_any_length_is_passed_over_and_cut_off_by_the_next_writer(
    written: Path,
) -> None:
    whole = written.read_bytes()
    kept = log.contents(OWNER, PAYLOADS[:2])[1]
    for size in range(kept.offset, len(whole)):
        written.write_bytes(whole[:size])
        assert log.read(written, OWNER) == (PAYLOADS[:2], kept)
        opened = Log(written, kept)
        assert written.stat().st_size == kept.offset
        opened.append(b"after")
        opened.close()
        assert log.read(written, OWNER)[0] == [*PAYLOADS[:2], b"after"]


@pytest.mark.parametrize("tail", [b"\0" * 5, b"\0" * 500, b"\xa9rec" * 20])
def test_a_tail_that_is_no_record_is_passed_over(written: Path, tail: bytes) -> None:
    written.write_bytes(written.read_bytes() + tail)
    assert log.read(written, OWNER)[0] == PAYLOADS


def test_a_flipped_bit_is_refused_by_file_and_place_or_drops_the_last_record_alone(
    written: Path,
) -> None:
    whole = bytearray(written.read_bytes())
    last = log.contents(OWNER, PAYLOADS[:2])[1].offset
    for place in range(len(whole)):
        for bit in (0, 7):
            whole[place] ^= 1 << bit
            written.write_bytes(whole)
            if place < last:
                with pytest.raises(IndexingError, match=r"1\.log (is damaged|was written by)"):
                    log.read(written, OWNER)
            else:
                assert log.read(written, OWNER)[0] == PAYLOADS[:2]
            whole[place] ^= 1 << bit


def test_damage_names_its_offset(written: Path) -> None:
    whole = bytearray(written.read_bytes())
    second = log.contents(OWNER, PAYLOADS[:1])[1].offset
    whole[second + 5] ^= 1
    written.write_bytes(whole)
    with pytest.raises(IndexingError, match=f"byte {second}"):
        log.read(written, OWNER)


@pytest.mark.parametrize("size", [0, 10, 31])
def test_a_log_without_its_header_is_refused(written: Path, size: int) -> None:
    written.write_bytes(written.read_bytes()[:size])
    with pytest.raises(IndexingError, match="no header"):
        log.read(written, OWNER)


def test_a_missing_log_another_generations_and_a_newer_versions_are_refused(written: Path) -> None:
    with pytest.raises(IndexingError, match=r"9\.log cannot be read"):
        log.read(written.with_name("9.log"), OWNER)
    with pytest.raises(IndexingError, match="another generation"):
        log.read(written, OWNER[::-1])
    start = log.START.pack(log.MAGIC, log.VERSION + 1, OWNER, 0)[:-4]
    written.write_bytes(start + struct.pack("<I", log.zlib.crc32(start)))
    with pytest.raises(IndexingError, match="newer irgen"):
        log.read(written, OWNER)


def test_a_reader_notices_that_what_it_read_was_taken_back(written: Path) -> None:
    end = log.read(written, OWNER)[1]
    kept, position = log.contents(OWNER, PAYLOADS[:2])
    written.write_bytes(kept)
    with pytest.raises(IndexingError, match="taken back"):
        log.read(written, OWNER, end)
    opened = Log(written, position)
    opened.append(b"x" * len(PAYLOADS[2]))  # as long as what was there
    opened.close()
    with pytest.raises(IndexingError, match="taken back"):
        log.read(written, OWNER, end)


def fail(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_log_as_it_was(written: Path, monkeypatch) -> None:
    before, position = written.read_bytes(), log.read(written, OWNER)[1]
    opened, write = Log(written, position), os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda f, data, at: fail() if at > position.offset else write(f, data[:9], at)
    )
    with pytest.raises(IndexingError, match="No space left on device; nothing was changed"):
        opened.append(b"does not fit")
    assert written.read_bytes() == before
    monkeypatch.setattr(os, "pwrite", lambda f, data, at: write(f, data[:9], at))  # bit by bit
    opened.append(b"fits")
    opened.close()
    assert log.read(written, OWNER)[0] == [*PAYLOADS, b"fits"]


@pytest.mark.parametrize("trouble", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_what_did_not_reach_the_disk_or_was_interrupted_is_taken_back(
    written: Path, trouble: BaseException, monkeypatch
) -> None:
    before, position = written.read_bytes(), log.read(written, OWNER)[1]
    opened, troubles = Log(written, position), [trouble]

    def troubled(_: int) -> None:
        if troubles:
            raise troubles.pop()

    monkeypatch.setattr(os, "fsync", troubled)
    with pytest.raises((IndexingError, KeyboardInterrupt)):
        opened.append(b"lost")
    assert written.read_bytes() == before
    opened.append(b"kept")
    opened.close()
    assert log.read(written, OWNER)[0] == [*PAYLOADS, b"kept"]


def test_a_log_that_cannot_be_brought_back_takes_nothing_more(written: Path, monkeypatch) -> None:
    opened = Log(written, log.read(written, OWNER)[1])
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(IndexingError, match="nothing was changed"):
        opened.append(b"lost")
    monkeypatch.undo()
    with pytest.raises(IndexingError, match="open the index again"):
        opened.append(b"too late")
    opened.close()
    assert log.read(written, OWNER)[0] == PAYLOADS
