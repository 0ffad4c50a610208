"""One stage, by the real DVC: what came of it, and what it says when it fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows import cache_check, stage, training_revision
from flows.stage import StageError

from .conftest import Toy, alive, until


def run(toy: Toy, name: str, timeout: float = 60, said: list[str] | None = None) -> str:
    tell = [].append if said is None else said.append
    return stage.run(toy.root, name, build="b", timeout=timeout, log=tell).outcome


@pytest.mark.slow
def test_a_stage_runs_then_is_skipped_then_restored(toy: Toy) -> None:
    assert [run(toy, "first"), run(toy, "first")] == ["ran", "skipped"]
    words = toy.root / "words.txt"
    words.write_text("other words")
    assert run(toy, "first") == "ran"
    words.write_text("some words")
    assert run(toy, "first") == "restored"
    assert toy.ran() == ["first", "first"]
    assert (toy.root / "data" / "first").read_text() == "first some words "


@pytest.mark.slow
def test_what_dvc_restores_from_a_damaged_cache_is_made_again(toy: Toy) -> None:
    words, out = toy.root / "words.txt", toy.root / "data" / "first"
    assert run(toy, "first") == "ran"
    (cached,) = (path for path in objects(toy) if path.read_bytes() == out.read_bytes())
    words.write_text("other words")
    assert run(toy, "first") == "ran"
    flip(cached)
    words.write_text("some words")
    said: list[str] = []
    assert run(toy, "first", said=said) == "ran"
    assert "DVC's cache held damaged copies of data/first; first runs again" in said
    assert out.read_text() == "first some words "
    assert not any(map(cache_check.is_damaged, objects(toy)))


def test_damaged_objects_of_the_cache_are_named_and_deleted(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(toy, "first") == "ran"
    whole = objects(toy)
    flip(whole[0])
    monkeypatch.chdir(toy.root)
    for count in (1, 0):
        assert cache_check.main() == 0
        assert f"{count} of them were damaged" in capsys.readouterr().out
    assert objects(toy) == whole[1:]


def objects(toy: Toy) -> list[Path]:
    return sorted((toy.root / ".dvc" / "cache" / "files" / "md5").glob("??/*"))


def flip(path: Path) -> None:
    """Flip a bit of an object of the cache, which is read-only, as DVC leaves it."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


@pytest.mark.parametrize("left", ["", '{"write": {"data/first": {"pid": 1, "c'])
def test_dvc_s_file_of_locks_that_a_killed_process_left_is_none(toy: Toy, left: str) -> None:
    locks = toy.root / ".dvc" / "tmp" / "rwlock"
    locks.parent.mkdir(exist_ok=True)
    locks.write_text(left)
    said: list[str] = []
    assert run(toy, "first", said=said) == "ran"
    assert any(stage.UNREADABLE.search(line) for line in said), "DVC has read it"
    assert "a killed DVC left that file incomplete; it is deleted, first runs again" in said
    assert not any(json.loads(locks.read_text()).values())


def test_dvc_s_file_of_locks_stays_if_it_can_be_read_by_now(toy: Toy) -> None:
    locks = toy.root / ".dvc" / "tmp" / "rwlock"
    locks.parent.mkdir(exist_ok=True)
    said = ("ERROR: failed: Unable to read RWLock-file '.dvc/tmp/rwlock'. JSON structure is …",)
    for there in ("{}", None):
        locks.unlink(missing_ok=True) if there is None else locks.write_text(there)
        assert stage.mend_rwlock(said, toy.root)
        assert locks.exists() == (there is not None)
    assert not stage.mend_rwlock(("ERROR: failed to reproduce 'first'",), toy.root)


def test_its_output_is_told_without_dvc_s_advice(toy: Toy) -> None:
    said: list[str] = []
    run(toy, "first", said=said)
    assert "working on first" in said
    assert not [line for line in said if "git add" in line or "dvc push" in line]


def test_it_is_run_under_the_build_s_key(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    (toy.root / "work.py").write_text(
        "import os; print('key', os.environ['IRGEN_BUILD']); open('data/first', 'w')"
    )
    (toy.root / "data").mkdir(exist_ok=True)
    said: list[str] = []
    run(toy, "first", said=said)
    assert "key b" in said


def test_it_is_told_the_revision_that_a_retrain_under_way_may_go_back_to(toy: Toy) -> None:
    training_revision.write(toy.root, 2)
    (toy.root / "work.py").write_text(
        "import os; print('before', os.environ.get('IRGEN_PREVIOUS_REVISION'))\n"
        "open('data/first', 'w')"
    )
    (toy.root / "data").mkdir(exist_ok=True)
    training_revision.begin(toy.root, 3, new=40)
    said: list[str] = []
    run(toy, "first", said=said)
    assert "before 2" in said
    training_revision.end(toy.root, released=True)
    (toy.root / "words.txt").write_text("other words")
    run(toy, "first", said=said)
    assert "before None" in said


def test_a_failure_is_told_in_the_stage_s_own_words(toy: Toy) -> None:
    toy.fault("first", "always")
    with pytest.raises(StageError, match=r"^first failed: irgen first: this is what went wrong"):
        run(toy, "first")


def test_a_full_disk_is_told_beside_what_dvc_makes_of_it(toy: Toy, monkeypatch) -> None:
    toy.fault("first", "always")
    usage = shutil.disk_usage(toy.root)._replace(free=4096)
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StageError, match="the disk has 4,096 bytes left: free some space"):
        run(toy, "first")


def test_a_warning_of_dvc_s_is_no_reason() -> None:
    lines = ("WARNING: No file hash info", "ERROR: failed to reproduce 'a': [Errno 2] No such file")
    assert stage.find_reason(lines) == "failed to reproduce 'a': [Errno 2] No such file"
    assert stage.find_reason(("> cmd", "ERROR: failed: failed to run: x")).startswith(
        "ERROR: failed"
    )


def test_a_fault_of_the_pipeline_is_told_in_dvc_s(toy: Toy) -> None:
    (toy.root / "words.txt").unlink()
    with pytest.raises(StageError, match=r"first failed: .*words\.txt"):
        run(toy, "first")


@pytest.mark.slow
def test_a_stage_that_takes_too_long_is_ended_with_all_it_started(toy: Toy) -> None:
    toy.fault("first", "sleep")
    with pytest.raises(StageError, match="first was stopped after 20 seconds: raise timeout_sec"):
        run(toy, "first", timeout=20)
    pids = [int(each) for each in (toy.root / "children").read_text().split()]
    assert len(pids) == 2
    until(lambda: not any(map(alive, pids)), "they live on")
    toy.mend("first")
    assert run(toy, "first") == "ran"  # no lock of DVC's is left behind


@pytest.mark.slow
def test_a_locked_repository_is_waited_for(toy: Toy) -> None:
    import threading

    import zc.lockfile

    lock = zc.lockfile.LockFile(str(toy.root / ".dvc" / "tmp" / "lock"))
    threading.Timer(6, lock.close).start()
    assert run(toy, "first") == "ran"
    assert os.environ.get("IRGEN_BUILD") is None


@pytest.mark.slow
def test_files_that_another_dvc_has_are_waited_for(toy: Toy) -> None:
    import threading

    run(toy, "first")
    toy.fault("right", "sleep")
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "right"]
    other = subprocess.Popen(command, cwd=toy.root, start_new_session=True)
    until((toy.root / "children").exists, "the other did not begin")
    (toy.root / "words.txt").write_text("other words")
    threading.Timer(4, lambda: (os.killpg(other.pid, signal.SIGKILL), other.wait())).start()
    said: list[str] = []
    assert run(toy, "first", said=said) == "ran"
    assert stage.is_busy(tuple(said))


def test_dvc_s_words_for_each_outcome_are_known(root: Path) -> None:
    """Check DVC's own words; if DVC changes them, this test and the three above fail."""
    from dvc.stage import cache, run

    source = Path(run.__file__).read_text() + Path(cache.__file__).read_text()
    assert "Running stage '%s':" in source
    assert "Stage '%s' is cached - skipping run, checking out outputs" in source


@pytest.mark.slow
def test_a_fresh_machine_takes_what_the_remote_has(toy: Toy, tmp_path: Path) -> None:
    """Also of a stage that runs each time: it goes on from what another machine left."""
    pipeline = toy.root / "dvc.yaml"
    always = "    outs: [data/first]\n    always_changed: true"
    pipeline.write_text(pipeline.read_text().replace("    outs: [data/first]", always))
    for command in (
        [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "there", str(tmp_path / "s")],
        [sys.executable, "-m", "dvc", "repro", "-q"],
        [sys.executable, "-m", "dvc", "push", "-q", "--run-cache"],
        ["git", "add", "."],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "made"],
        ["git", "clone", "-q", str(toy.root), str(tmp_path / "clone")],
    ):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PATH": path}
        subprocess.run(command, cwd=toy.root, env=environment, check=True, timeout=120)
    clone = tmp_path / "clone"
    lines: list[str] = []
    stage.fetch(clone, "first", timeout=60, log=lines.append)
    assert (clone / "data" / "first").read_text() == (toy.root / "data" / "first").read_text()
    names = ("first", "left", "right", "last")
    came = [
        stage.run(clone, name, build="b", timeout=60, log=lines.append, pull=True).outcome
        for name in names
    ]
    assert came == ["ran", "restored", "restored", "restored"], lines
