"""Run logs: who writes one, and when it is deleted."""

import os
from pathlib import Path

from irgen.tracking import (
    run_log,
)
from irgen.tracking.locations import run_logs


def test_synced_run_logs_are_deleted_in_time(home: Path) -> None:
    folder = run_logs(home)
    for build, done in (("old", True), ("new", True), ("waiting", False)):
        log = run_log.create(folder, build, "catalog")
        log.append("begin")
        log.lock.release()
        run_log.write_state(log.path, done=done)
        if build != "new":
            for path in log.path.parent.iterdir():
                os.utime(path, (0, 0))
    run_log.delete_synced(folder, days=14)
    assert sorted(path.name for path in folder.iterdir()) == ["new", "waiting"]


def test_a_run_log_has_a_writer_until_its_lock_is_free(tmp_path: Path) -> None:
    first = run_log.create(tmp_path, "build 1", "trie")
    second = run_log.create(tmp_path, "build 1", "trie")
    assert [log.path.name for log in (first, second)] == ["trie.jsonl", "trie-2.jsonl"]
    assert first.path.parent == tmp_path / "build-1"
    assert run_log.has_writer(first.path) and run_log.is_open(first.path)
    first.append("end", status="FINISHED")
    assert run_log.has_writer(first.path) and not run_log.is_open(first.path)
    first.lock.release()
    assert not run_log.has_writer(first.path)
    second.delete()
    assert run_log.read(first.path)[0]["status"] == "FINISHED"
    assert not run_log.has_writer(second.path) and not second.path.exists()
