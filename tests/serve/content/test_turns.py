"""Turns at an index: for a while, and no longer if somebody else waits."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from irgen.errors import LockedError
from irgen.index.index import Index
from irgen.serve.content import turns
from irgen.serve.content.turns import Turns

from ...waiting import wait_until


@pytest.fixture
def folder(tmp_path, make_project):
    return make_project(tmp_path) / "data" / "index"


@pytest.fixture
def own(folder):
    turns = Turns(lambda wait: Index.open(folder, writable=True, wait=wait))
    yield turns
    turns.close()


def is_free(folder):
    try:
        Index.open(folder, writable=True).close()
    except LockedError:
        return False
    return True


def test_a_turn_goes_on_until_nothing_was_changed_for_a_while(own, folder):
    with own.take(0) as first:
        first.remove(["dogs/01.png"])
    with own.take(0) as second:
        assert second is first
    own.end_if_due()
    assert own.is_open and not is_free(folder)
    wait_until(lambda: own.end_if_due() or not own.is_open)
    assert is_free(folder)


def test_a_turn_ends_at_once_if_somebody_waits_who_then_has_the_next(own, folder, monkeypatch):
    monkeypatch.setattr(turns, "IDLE_SECONDS", 600)
    with own.take(0):
        pass
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(Index.open, folder, writable=True, wait=60)
        wait_until(lambda: own.end_if_due() or not own.is_open)
        with pytest.raises(LockedError), own.take(0):
            pass  # it pauses for whoever waits
        waiting.result(60).close()
    with own.take(60) as index:
        assert len(index) == 40


def test_a_turn_does_not_last_longer_because_changes_go_on(own, folder, monkeypatch):
    monkeypatch.setattr(turns, "LONGEST_SECONDS", 0.2)
    started = time.monotonic()
    with own.take(0) as index:
        pass
    while own.is_open:
        with own.take(0) as same:
            assert same is index or time.monotonic() - started > 0.2
    assert is_free(folder)


def test_a_turn_goes_on_at_an_index_that_has_become_empty(own):
    with own.take(0) as first:
        first.remove(first.view.all_ids())
    with own.take(0) as second:
        assert second is first and len(second) == 0


def test_an_error_ends_the_turn(own, folder):
    with pytest.raises(ZeroDivisionError), own.take(0):
        raise ZeroDivisionError
    assert not own.is_open and is_free(folder)


def test_a_turn_ends_when_its_index_was_deleted(own, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    with own.take(0) as first:
        first.remove(first.view.all_ids()[:1])
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    with own.take(0) as second:
        assert second is not first
        second.remove(second.view.all_ids()[:2])
    with Index.open(folder) as index:
        assert len(index) == 38


def test_the_index_is_given_back_also_after_a_look_that_failed(own, folder, monkeypatch):
    monkeypatch.setattr(turns, "LEAST_OPENINGS", 0)

    def fail(*_, **__):
        raise OSError(24, "Too many open files")

    with own.take(0):
        pass
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.open", fail)
        own.end_if_due()
    assert own.is_open
    wait_until(lambda: own.end_if_due() or not own.is_open)
    assert is_free(folder)
