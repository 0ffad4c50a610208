"""Files that the service keeps for a while."""

import os
import time

from irgen.serve.content.file_cache import FileCache


def total(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache = FileCache(tmp_path, 1000)
    for number in range(10):
        cache.put(str(number), bytes(70))
        for path in tmp_path.glob("??/*"):  # all of them are older now
            os.utime(path, (0, path.stat().st_mtime - 10))
    assert cache.get("0") is not None  # used now
    for number in range(10, 14):
        cache.put(str(number), bytes(70))
    assert total(tmp_path) <= 1000
    assert cache.get("0") and cache.get("1") is None and cache.get("13")


def test_caches_of_several_processes_stay_within_their_bound(tmp_path):
    caches = [FileCache(tmp_path, 1000) for _ in range(3)]
    for number in range(300):
        caches[number % 3].put(str(number), bytes(50))
        assert total(tmp_path) <= 1000 * (4 + 3) / 5
    assert caches[0].get("299") == bytes(50)


def test_a_folder_that_cannot_be_written_keeps_nothing_and_fails_nobody(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = FileCache(tmp_path / "file" / "cache", 1000)
    cache.put("a", b"content")
    assert cache.get("a") is None


def test_a_cache_of_many_files_is_opened_at_once(tmp_path):
    for number in range(2000):
        path = tmp_path / f"{number % 100:02d}" / str(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a")
    started = time.perf_counter()
    FileCache(tmp_path, 1000)
    assert time.perf_counter() - started < 0.01
