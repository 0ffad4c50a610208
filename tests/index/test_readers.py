"""Readers, in any thread or process, see what was committed, whole, while one writes."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

from irgen.index import rows
from irgen.index.database import Database
from irgen.index.index import Index

from .conftest import NAMES


def test_a_view_outlives_the_base_it_was_read_from(index: Index, folder, add, small) -> None:
    add(index, "x")
    with Index.open(folder) as reader:
        view = reader.view
        before = small.contents(reader)
        index.remove(["a", "x"])
        index.compact()
        index.compact()
        assert [path.name for path in (folder / "base").iterdir()] == ["3"]
        assert reader.view is view
        assert small.contents(reader) == before
        reader.save(folder.with_name("old"))  # takes in what is new, first
        assert small.contents(reader) == small.contents(index)


def test_an_index_that_nobody_holds_is_freed_at_once(folder: Path, small) -> None:
    gc.disable()
    try:
        reader = Index.open(folder)
        small.contents(reader)
        view, file = weakref.ref(reader.view), weakref.ref(reader._file)
        del reader
        assert view() is None and file() is None
    finally:
        gc.enable()


def test_searching_threads_never_see_half_a_change(index: Index, folder: Path, add, small) -> None:
    """Two images come and go together; another is always there, under one of two versions."""
    stop, wrong = threading.Event(), []
    rounds = [0]

    def look(opened: Index) -> None:
        while not stop.is_set():
            opened.refresh()
            view = opened.view
            pair = (view.find(["one", "two"]) >= 0).tolist()
            rows = view.find(["bb"])
            if pair[0] != pair[1] or rows[0] < 0 or len(view.snapshot) not in (5, 7):
                wrong.append((pair, rows))
            rounds[0] += 1

    with Index.open(folder) as reader:
        threads = [threading.Thread(target=look, args=(o,)) for o in (index, reader, reader)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and not wrong:
            add(index, "one", "two")
            add(index, "bb", version=1, put="upsert_encoded")
            index.compact()
            index.remove(["two", "one"])
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert rounds[0] > 20


def test_readers_in_other_processes_follow_the_writer(index: Index, folder: Path, add) -> None:
    code = f"""
import sys
from irgen.index.index import Index
with Index.open({str(folder)!r}) as index:
    print("open", flush=True)
    for line in sys.stdin:
        index.refresh()
        view = index.view
        print(*sorted(view.all_ids()), index.info()["base"], flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin
        assert reader.stdout

        def ask() -> str:
            reader.stdin.write("?\n")
            reader.stdin.flush()
            return reader.stdout.readline().strip()

        assert reader.stdout.readline() == "open\n"
        assert ask() == "a bb ccc dddd eeeee 1"
        add(index, "x")
        assert ask() == "a bb ccc dddd eeeee x 1"
        index.remove(["a", "bb", "ccc"])
        index.compact()
        assert ask() == "dddd eeeee x 2"
        add(index, "y")
        index.compact()
        index.remove(["x"])
        assert ask() == "dddd eeeee y 3"
        reader.stdin.close()


def test_a_reader_reads_only_what_is_new(index, folder, add, monkeypatch) -> None:
    with Index.open(folder) as reader:
        view = reader.view
        reader.refresh()
        assert reader.view is view
        add(index, "x")
        reader.refresh()
        assert reader.view is not view
        assert reader.view.base is view.base
        assert reader.view.snapshot.segments[0] is view.snapshot.segments[0]


def test_a_reader_never_sees_what_is_not_committed(index: Index, folder: Path, add, small) -> None:
    """Read just before the commit: a kill or an interrupt at this moment undoes all."""
    before = small.contents(index)
    with Index.open(folder) as reader:

        def look(statement: str) -> None:
            if statement == "COMMIT":
                reader.refresh()
                assert small.contents(reader) == before
                raise KeyboardInterrupt

        index._writer._connection.set_trace_callback(look)
        add(index, "x", "y")
        index._writer._connection.set_trace_callback(None)
        reader.refresh()
        assert small.contents(reader) == before | small.expected(["x", "y"])


def test_a_folder_that_cannot_be_written_is_read_until_somebody_else_writes(
    index: Index, folder: Path, add, small
) -> None:
    add(index, "x")
    expected = small.contents(index)
    index.close()
    (folder / "changes.sqlite-shm").mkdir()  # nor can SQLite make this file
    with Index.open(folder) as reader:
        assert small.contents(reader) == expected
        (folder / "changes.sqlite-shm").rmdir()
        code = f"""
import os
from pathlib import Path
from irgen.index.database import Database
Database(Path({str(folder)!r}), writable=True).remove(["x"], {rows.hash_ids(["x"])!r})
os._exit(0)
""".replace("array(", "__import__('numpy').array(")
        subprocess.run([sys.executable, "-c", code], check=True)
        reader.refresh()
        del expected["x"]
        assert small.contents(reader) == expected


def test_a_writer_killed_as_it_first_opened_the_file_is_cleared_up(folder: Path, small) -> None:
    before = (folder / "changes.sqlite").read_bytes()
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(folder / "changes.sqlite")!r}, isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("PRAGMA cache_spill = 1")
connection.execute("BEGIN")
for key in range(200):
    connection.execute("INSERT INTO changes (key, id, checksum) VALUES (?, ?, 0)", (key, "x" * 999))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (folder / "changes.sqlite-journal").exists()
    assert (folder / "changes.sqlite").read_bytes() != before
    with Index.open(folder) as reader:
        assert small.contents(reader) == small.expected(NAMES, trained=None)


def test_a_fork_reads_by_a_connection_of_its_own(index: Index, folder: Path, add) -> None:
    file = Database(folder)
    add(index, "x")
    process = os.fork()
    if not process:
        os._exit(file.state().revision)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 1
    add(index, "y")
    assert file.state().revision == 2
    file.close()


def test_a_replaced_index_keeps_its_log_when_readers_of_the_old_one_leave(
    folder: Path, add, small
) -> None:
    with Index.open(folder, writable=True) as writer:
        add(writer, "x")
    reader = Index.open(folder)
    small.create(folder, ["new"], replace=True)
    with Index.open(folder, writable=True) as writer:
        add(writer, "y")
        log = (folder / "changes.sqlite-wal").read_bytes()
        reader.close()
        assert (folder / "changes.sqlite-wal").read_bytes() == log
