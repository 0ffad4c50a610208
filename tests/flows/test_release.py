"""The release that is started before its time: it does nothing until it is asked to."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.release import Ahead
from irgen.errors import ReleaseError

from .conftest import alive, until

# Stands for a project whose gate says something: what it was started with, and when.
SAYS = """
import json, os, pathlib, sys, time
print(os.getpid(), file=open("started", "a"))
word = pathlib.Path(sys.argv[sys.argv.index("--after") + 1]) if "--after" in sys.argv else None
while word and not word.exists():
    if not word.parent.exists():
        sys.exit(0)
    time.sleep(0.01)
print("judged")
print(json.dumps({"ahead": word is not None, "build": os.environ["IRGEN_BUILD"]}))
sys.exit(int(pathlib.Path("status").read_text()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data" / "index").mkdir(parents=True)
    (tmp_path / "irgen").mkdir()
    (tmp_path / "irgen" / "__main__.py").write_text(SAYS)
    (tmp_path / "status").write_text("0")
    return tmp_path


def started(project: Path) -> list[int]:
    path = project / "started"
    return [int(each) for each in path.read_text().split()] if path.exists() else []


def wait_for_start(project: Path, times: int = 1) -> None:
    until(lambda: len(started(project)) == times, 20, "the release was not started")


def test_a_release_that_waits_is_told_to_begin_and_says_what_it_decided(project: Path) -> None:
    said: list[str] = []
    with Ahead(project, "build 7") as ahead:
        ahead.start()
        wait_for_start(project)
        time.sleep(0.2)
        assert not said
        decision = ahead.run(said.append)
    assert decision.released and decision.about == {"ahead": True, "build": "build 7"}
    assert said == ["judged"] and len(started(project)) == 1


def test_a_release_that_was_not_started_or_has_been_killed_is_started_when_it_is_needed(
    project: Path,
) -> None:
    with Ahead(project, "b") as ahead:
        assert not ahead.run(print).about["ahead"]
        ahead.start()
        wait_for_start(project, 2)
        os.kill(started(project)[-1], 9)
        thread = ahead.thread
        assert thread is not None
        thread.join(20)
        assert not ahead.run(print).about["ahead"]


def test_without_an_index_nothing_is_started_ahead(project: Path) -> None:
    (project / "data" / "index").rmdir()
    with Ahead(project, "b") as ahead:
        ahead.start()
        assert ahead.thread is None and not ahead.run(print).about["ahead"]


def test_a_second_pass_has_a_release_of_its_own_that_waits(project: Path) -> None:
    with Ahead(project, "b") as ahead:
        ahead.start()
        wait_for_start(project)
        assert ahead.run(print).about["ahead"]
        (project / "status").write_text("3")
        ahead.start()
        wait_for_start(project, 2)
        time.sleep(0.2)
        assert ahead.ended is None, "it went on by the word of the pass before"
        assert not ahead.run(print).released


def test_a_release_that_fails_is_told_and_tried_again_by_itself(project: Path) -> None:
    (project / "status").write_text("1")
    with Ahead(project, "b") as ahead:
        ahead.start()
        wait_for_start(project)
        with pytest.raises(ReleaseError, match="release failed: "):
            ahead.run(print)
        (project / "status").write_text("0")
        assert ahead.run(print).released and len(started(project)) == 2


def test_a_release_that_nobody_asks_for_ends_with_the_pass(project: Path) -> None:
    with Ahead(project, "b") as ahead:
        ahead.start()
        wait_for_start(project)
    assert ahead.ended is not None and ahead.ended.lines == ()


def test_the_command_waits_for_its_word_and_ends_if_it_cannot_come(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    word = tmp_path / "words" / "word"
    command = [sys.executable, "-m", "irgen", "release", "--after", str(word)]
    command += ["--root", str(tmp_path)]

    def begun() -> "subprocess.Popen[str]":
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with begun() as waiting, begun() as asked:
        time.sleep(1)
        assert waiting.poll() is None and asked.poll() is None
        word.touch()
        assert "params.yaml" in asked.communicate(timeout=60)[1] and asked.returncode
        waiting.communicate(timeout=60)
    word.unlink()
    with begun() as waiting:
        word.parent.rmdir()
        assert waiting.communicate(timeout=60) == ("", "") and waiting.returncode == 0


def test_a_flow_that_is_cancelled_while_it_releases_leaves_nothing_behind(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = (project / "irgen" / "__main__.py").read_text()
    slow = says.replace('print("judged")', 'print("judged", flush=True); time.sleep(600)')
    (project / "irgen" / "__main__.py").write_text(slow)

    class Cancelled(BaseException):
        pass

    with pytest.raises(Cancelled), Ahead(project, "b") as ahead:
        ahead.start()
        wait_for_start(project)
        thread = ahead.thread
        assert thread is not None
        wait = thread.join

        def interrupted() -> None:
            until(lambda: said, 20, "it was not told to begin")
            raise Cancelled

        said: list[str] = []
        monkeypatch.setattr(thread, "join", interrupted)
        ahead.run(said.append)
    wait(20)
    assert not thread.is_alive() and not alive(started(project)[0])
