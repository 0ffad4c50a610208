"""The release store: what is on it is whole, one is the champion, and what is kept is kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.errors import ReleaseError
from irgen.releases import release, store
from irgen.releases.release import Release


def put(releases: Path, version: int, text: str = "") -> Release:
    """Return a release of one small file."""
    content = text or f"content {version}"

    def fill(folder: Path) -> None:
        (folder / "models").mkdir()
        (folder / "models" / "weights").write_text(content)

    probe = releases.parent / f"probe {version}"
    probe.mkdir(parents=True)
    fill(probe)
    files = release.list_files(probe)
    made = Release(version=version, bundle=release.digest_files(files), files=files)
    store.add_release(releases, made, fill)
    return made


def test_a_release_is_read_as_it_was_written(tmp_path):
    made = put(tmp_path / "releases", 3)
    assert release.read(tmp_path / "releases" / made.name) == made
    assert store.list_releases(tmp_path / "releases") == [made]
    changed = store.update(tmp_path / "releases", made, state="released", metrics={"a": 0.5})
    assert store.find_release(tmp_path / "releases", 3) == changed


def test_equal_files_are_one_bundle_and_others_are_not(tmp_path):
    one, same, other = (
        put(tmp_path / str(n) / "store", n, text) for n, text in [(1, "x"), (2, "x"), (3, "y")]
    )
    assert one.bundle == same.bundle != other.bundle


def test_what_a_writer_leaves_is_no_content(tmp_path):
    for name in ("index.json", "lock", "release.json", ".current.7.tmp"):
        (tmp_path / name).write_text(name)
    assert release.list_files(tmp_path).keys() == {"index.json"}


def test_the_champion_is_one_of_them_or_none_or_lost(tmp_path):
    releases = tmp_path / "releases"
    one, two = put(releases, 1), put(releases, 2)
    assert store.read_champion(releases) is None
    store.set_champion(releases, one)
    store.set_champion(releases, two)
    assert store.read_champion(releases) == two
    assert (releases / "champion").readlink() == Path(two.name)  # the folder may be moved
    assert not store.is_champion_missing(releases)
    store.delete_release(releases, two)
    assert store.is_champion_missing(releases)
    with pytest.raises(ReleaseError, match=r"leads to 0002-.*irgen releases pull"):
        store.read_champion(releases)


def test_a_fill_that_fails_leaves_nothing(tmp_path):
    def fails(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        store.add_release(tmp_path, Release(version=1, bundle="abcdef1234", files={}), fails)
    assert not list(tmp_path.iterdir())


def test_what_killed_ones_left_is_cleared_away_by_the_next(tmp_path):
    (tmp_path / ".0001-abcdef12.77.tmp" / "models").mkdir(parents=True)
    (tmp_path / ".champion.77.tmp").symlink_to("0001-abcdef12")
    with store.lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
    with (
        store.lock(tmp_path),
        pytest.raises(ReleaseError, match="has been running"),
        store.lock(tmp_path),
    ):
        pass


@given(
    versions=st.sets(st.integers(1, 40), min_size=1),
    keep=st.integers(1, 10),
    data=st.data(),
)
def test_pruning_spares_the_champion_its_predecessor_and_the_newest(versions, keep, data):
    there = [Release(version=n, bundle="b" * 9, files={}) for n in sorted(versions, reverse=True)]
    served = data.draw(st.sampled_from(there))
    served = replace(served, previous=data.draw(st.one_of(st.none(), st.integers(1, 40))))
    gone = {one.version for one in store.select_to_prune(there, served, keep)}
    left = sorted(versions - gone, reverse=True)
    spared = versions & {served.version, served.previous}
    assert spared <= set(left)
    assert len(left) == min(len(versions), keep + len(spared))
    others = [n for n in left if n not in spared]
    assert all(n < min(others) for n in gone) if others else True


def test_a_record_of_a_newer_irgen_is_read_and_a_foreign_one_is_not(tmp_path):
    made = Release(version=1, bundle="abcdef1234", files={})
    values = {"version": 1, "bundle": "abcdef1234", "files": {}, "mood": "good"}
    assert release.parse(values, "here") == made
    with pytest.raises(ReleaseError, match="here is not the record of a release"):
        release.parse({"version": 1}, "here")
