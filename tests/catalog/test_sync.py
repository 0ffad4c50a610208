"""A sync reads and writes only what differs, and survives being killed."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.catalog import manifest
from irgen.catalog.changes import Change
from irgen.catalog.shards import FOLDER, Images
from irgen.catalog.sources.listing import Entry, Listing, Source
from irgen.catalog.sync import sync
from irgen.errors import SourceError

Contents = dict[str, bytes]


def source(contents: Contents, read: list[str] | None = None, **more: object) -> Source:
    """Return a source of these contents with lengths as etags; ``read`` collects the keys that are
    read."""

    def entry(key: str) -> Entry:
        def take() -> bytes:
            if read is not None:
                read.append(key)
            return contents[key]

        return Entry(key, f"{len(contents[key])}", take)

    entries = (entry(key) for key in sorted(contents))
    listing = Listing(entries=entries, count=len(contents), **more)
    return Source(name="shop", stamp=None, load=lambda: listing)


def held(folder: Path) -> Contents:
    images = Images(folder)
    table = manifest.images(manifest.read(folder))
    return {key: images.read(sha) for key, sha in table.select("key", "sha256").iter_rows()}


def counts(change: Change) -> tuple[int, ...]:
    return (change.new, change.changed, change.gone, change.revision)


def test_only_new_and_changed_images_are_read_and_written(tmp_path: Path) -> None:
    old = {"a/1": b"1", "a/2": b"22", "b/3": b"333"}
    assert counts(sync(source(old), tmp_path)) == (3, 0, 0, 1)
    shard = (tmp_path / FOLDER / "r00001-000.tar").read_bytes()
    new = {"a/1": b"1", "a/2": b"2222", "c/4": b"4"}
    read: list[str] = []
    assert counts(sync(source(new, read), tmp_path)) == (1, 1, 1, 2)
    assert read == ["a/2", "c/4"]
    assert held(tmp_path) == new
    assert manifest.read(tmp_path)["revision"].to_list() == [1, 2, 2]
    assert (tmp_path / FOLDER / "r00001-000.tar").read_bytes() == shard


def test_an_unchanged_source_writes_nothing(tmp_path: Path) -> None:
    contents = {"a/1": b"1", "b/2": b"22"}
    sync(source(contents, empty_folders=("c/",)), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    change = sync(source(contents, empty_folders=("c/",)), tmp_path)
    assert not change and change.images == 2 and change.revision == 1
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_another_etag_with_the_same_content_is_no_change(tmp_path: Path) -> None:
    def with_etag(etag: str) -> Source:
        listing = Listing(entries=[Entry("a/1", etag, lambda: b"1")], count=1)
        return Source(name="shop", stamp=None, load=lambda: listing)

    sync(with_etag("old"), tmp_path)
    assert not sync(with_etag("new"), tmp_path)
    row = manifest.read(tmp_path).row(0, named=True)
    assert (row["etag"], row["revision"]) == ("new", 1)


def test_a_shard_without_living_images_is_deleted(tmp_path: Path) -> None:
    sync(source({"a/1": b"1"}), tmp_path)
    sync(source({"a/1": b"1", "a/2": b"22"}), tmp_path)
    sync(source({"a/2": b"22"}), tmp_path)
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["r00002-000.tar"]


def test_an_empty_class_is_a_row_and_not_a_change(tmp_path: Path) -> None:
    sync(source({"a/1": b"1"}), tmp_path)
    assert not sync(source({"a/1": b"1"}, empty_folders=("b/",)), tmp_path)
    assert manifest.read(tmp_path).row(1) == ("b/", 0, "", None, 0, None, None, None, None)


def test_a_new_label_in_the_list_is_a_change_that_keeps_the_image(tmp_path: Path) -> None:
    def listed(labels: list[str], price: list[float]) -> pl.DataFrame:
        return pl.DataFrame(
            {"key": ["1", "2"], "label": labels, "metadata": [{"price": p} for p in price]}
        )

    contents, nan = {"1": b"1", "2": b"22"}, float("nan")
    sync(source(contents, columns=listed(["a", "b"], [nan, 1.0])), tmp_path)
    assert not sync(source(contents, columns=listed(["a", "b"], [nan, 1.0])), tmp_path)
    change = sync(source(contents, columns=listed(["a", "c"], [nan, 1.0])), tmp_path)
    assert (change.relabelled, change.changed, change.revision) == (1, 0, 2)
    assert manifest.read(tmp_path)["revision"].to_list() == [1, 2], "another label, another image"
    assert manifest.read_past(tmp_path).select("key", "label", "gone").rows() == [("2", "b", 2)]
    more = listed(["a", "c"], [nan, 1.0]).with_columns(brand=pl.lit("x"))
    assert sync(source(contents, columns=more), tmp_path).relabelled == 2
    assert manifest.read(tmp_path)["revision"].to_list() == [1, 2]


def test_an_image_that_the_list_names_too_early_is_new_when_it_comes(tmp_path: Path) -> None:
    def both(second: Callable[[], bytes] | None) -> Source:
        entries = [Entry("1", "x", lambda: b"1"), Entry("2", "y" if second else "", second)]
        return Source(name="shop", stamp=None, load=lambda: Listing(entries=entries, count=2))

    assert counts(sync(both(None), tmp_path)) == (1, 0, 0, 1)
    assert not sync(both(None), tmp_path)
    assert counts(sync(both(lambda: b"2"), tmp_path)) == (1, 0, 0, 2)
    assert counts(sync(both(None), tmp_path)) == (0, 0, 1, 3)


def test_another_source_without_a_common_image_starts_at_revision_one(tmp_path: Path) -> None:
    sync(source({"a/1": b"1"}), tmp_path)
    sync(source({"a/1": b"1", "a/2": b"2"}), tmp_path)
    other = {"a/1": b"other", "x/9": b"9"}
    change = sync(Source(name="other", stamp=None, load=source(other).load), tmp_path)
    assert counts(change) == (2, 0, 0, 1)
    assert held(tmp_path) == other
    assert manifest.read(tmp_path)["revision"].to_list() == [1, 1]
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_a_source_that_moved_keeps_its_revisions(tmp_path: Path) -> None:
    sync(source({"a/1": b"1"}), tmp_path)
    moved = Source(name="moved", stamp=None, load=source({"a/1": b"1", "a/2": b"2"}).load)
    assert counts(sync(moved, tmp_path)) == (1, 0, 0, 2)


def test_a_lost_shard_is_made_again_and_images_keep_their_revision(tmp_path: Path) -> None:
    contents = {"a/1": b"1", "a/2": b"22"}
    sync(source(contents), tmp_path)
    shutil.rmtree(tmp_path / FOLDER)
    change = sync(source(contents), tmp_path)
    assert not change and change.revision == 1
    assert held(tmp_path) == contents
    assert manifest.read(tmp_path)["revision"].to_list() == [1, 1]


def test_a_source_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    sync(source({"a/1": b"1"}), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def broken():
        yield Entry("a/2", "x", lambda: b"2")
        raise SourceError("gone")

    failing = Source(name="shop", stamp=None, load=lambda: Listing(entries=broken(), count=2))
    with pytest.raises(SourceError, match="gone"):
        sync(failing, tmp_path, shard_bytes=1)
    sync(source({"a/1": b"1"}), tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_what_is_gone_is_remembered_and_its_bytes_kept_if_training_had_it(tmp_path: Path) -> None:
    sync(source({"a/1": b"1"}), tmp_path, trained=1)
    sync(source({"a/1": b"other", "a/2": b"22"}), tmp_path, trained=1)
    sync(source({"a/2": b"22"}), tmp_path, trained=1)
    past = manifest.read_past(tmp_path).select("key", "revision", "gone").rows()
    assert past == [("a/1", 1, 2), ("a/1", 2, 3)]
    assert {p.name for p in (tmp_path / FOLDER).iterdir()} == {
        "r00001-000.tar",
        "r00002-000.tar",
    }
    first = manifest.read_past(tmp_path)["sha256"][0]
    assert Images(tmp_path).read(first) == b"1"
    sync(source({"a/2": b"22", "a/3": b"3"}), tmp_path, trained=3)
    assert {p.name for p in (tmp_path / FOLDER).iterdir()} == {
        "r00002-000.tar",
        "r00004-000.tar",
    }
    assert manifest.read_past(tmp_path).select("key", "revision", "gone").rows() == past


def test_an_image_that_comes_back_is_new_again(tmp_path: Path) -> None:
    for contents in ({"a/1": b"1", "b/1": b"2"}, {"b/1": b"2"}, {"a/1": b"1", "b/1": b"2"}):
        sync(source(contents), tmp_path, trained=1)
    assert manifest.read(tmp_path).select("key", "revision").rows() == [("a/1", 3), ("b/1", 1)]
    past = manifest.read_past(tmp_path).select("key", "revision", "gone").rows()
    assert past == [("a/1", 1, 2)]


KEYS = st.sampled_from(["a/1", "a/2", "b/1", "b/2", "c/1"])
STATES = st.lists(
    st.dictionaries(KEYS, st.binary(min_size=1, max_size=3), min_size=1), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=40)
@given(STATES)
def test_after_any_history_the_copy_is_the_source(tmp_path_factory, states: list[Contents]) -> None:
    folder = tmp_path_factory.mktemp("history")
    revision = 0
    before: Contents = {}
    for contents in states:
        unchanging = source(contents)
        entries = [Entry(e.key, None, e.read) for e in unchanging.load().entries]
        listing = Listing(entries=entries, count=len(entries))
        change = sync(Source(name="shop", stamp=None, load=lambda x=listing: x), folder)
        revision += contents != before
        assert held(folder) == contents
        assert change.revision == manifest.read_revision(folder)[0] == revision
        shards = {p.stem for p in (folder / FOLDER).iterdir()}
        assert shards == set(manifest.read(folder)["shard"])
        before = contents


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from irgen.catalog.sources.listing import Entry, Listing, Source
    from irgen.catalog import manifest, sync as module

    def entries():
        for i in range(40):
            if i == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            yield Entry(f"a/{i:02d}", "3000", lambda i=i: bytes([i]) * 3000)

    if sys.argv[2] == "manifest":
        manifest.write = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
        sys.argv[2] = "-1"
    if sys.argv[2] == "sweep":
        whole = module.sweep_strays
        def sweep(*given, seen=[]):
            seen.append(1)
            return whole(*given) if len(seen) == 1 else os.kill(os.getpid(), signal.SIGKILL)
        module.sweep_strays = sweep
        sys.argv[2] = "-1"
    listing = Listing(entries=entries(), count=40)
    module.sync(
        Source(name="shop", stamp=None, load=lambda: listing), Path(sys.argv[1]), shard_bytes=20_000
    )
"""


@pytest.mark.parametrize("moment", ["17", "manifest", "sweep"])
def test_killed_at_any_moment_the_next_sync_ends_as_an_unbroken_one(
    tmp_path: Path, root: Path, moment: str
) -> None:
    old = {f"a/{i:02d}": bytes([i]) * (3000 if i < 5 else 10) for i in range(30)}
    new = {f"a/{i:02d}": bytes([i]) * 3000 for i in range(40)}
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    for folder in (broken, whole):
        sync(source(old), folder, shard_bytes=20_000)
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(broken), moment],
        cwd=root,
        env=dict(os.environ, PYTHONPATH=str(root)),
        check=False,
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert len(held(broken)) in (30, 40)  # the old copy or the new one, whole
    for folder in (broken, whole):
        sync(source(new), folder, shard_bytes=20_000)
    names = [sorted(p.name for p in (folder / FOLDER).iterdir()) for folder in (broken, whole)]
    assert names[0] == names[1]
    assert manifest.read(broken).equals(manifest.read(whole))
    assert held(broken) == held(whole) == new
    assert manifest.read_revision(broken) == (2, "shop")
