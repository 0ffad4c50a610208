"""An image that cannot be had is no reason to stop, and not gone; many of them are."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from irgen.catalog import manifest
from irgen.catalog.failures import IN_A_ROW
from irgen.catalog.shards import Images
from irgen.catalog.sources.listing import Entry, Listing, Source, refuse
from irgen.catalog.sync import has_changed, sync
from irgen.errors import GivenUpError, SourceError, UnreadableError

Contents = Mapping[str, bytes | Exception | str]


def source(contents: Contents, etags: Mapping[str, str] | None = None) -> Source:
    """Return a source of these contents; it raises an error on reading, and lists a text as a
    problem."""

    def entry(key: str) -> Entry:
        content = contents[key]
        if isinstance(content, str):
            return refuse(key, content)

        def read() -> bytes:
            if isinstance(content, Exception):
                raise content
            return content

        return Entry(key, (etags or {}).get(key, "1"), read)

    entries = [entry(key) for key in sorted(contents)]
    listing = Listing(entries=entries, count=len(entries))
    return Source(name="shop", stamp=None, load=lambda: listing)


def held(folder: Path) -> dict[str, bytes]:
    images, table = Images(folder), manifest.images(manifest.read(folder))
    return {key: images.read(sha) for key, sha in table.select("key", "sha256").iter_rows()}


def problems(folder: Path) -> dict[str, str]:
    table = manifest.unreadable(manifest.read(folder))
    return dict(table.select("key", "problem").iter_rows())


GOOD = {f"a/{number}.jpg": b"%d" % number for number in range(9)}
DENIED = UnreadableError("403")


def test_one_image_that_cannot_be_had_is_noted_and_the_others_come(tmp_path: Path) -> None:
    change = sync(source({**GOOD, "a/x.jpg": DENIED}), tmp_path, max_unreadable=0.2)
    assert (change.images, change.new, change.unreadable) == (9, 9, 1)
    assert held(tmp_path) == GOOD
    assert problems(tmp_path) == {"a/x.jpg": "403"}


def test_it_is_tried_again_although_its_etag_is_the_same(tmp_path: Path) -> None:
    sync(source({**GOOD, "a/x.jpg": DENIED}), tmp_path, max_unreadable=0.2)
    assert has_changed(source({**GOOD, "a/x.jpg": DENIED}), tmp_path)
    change = sync(source({**GOOD, "a/x.jpg": b"x"}), tmp_path, max_unreadable=0.2)
    assert (change.new, change.unreadable) == (1, 0)
    assert held(tmp_path)["a/x.jpg"] == b"x"
    assert problems(tmp_path) == {}


def test_a_problem_that_the_listing_tells_is_no_change_while_it_stays(tmp_path: Path) -> None:
    sync(source({**GOOD, "a/x.jpg": "a link"}), tmp_path, max_unreadable=0.2)
    assert problems(tmp_path) == {"a/x.jpg": "a link"}
    assert not has_changed(source({**GOOD, "a/x.jpg": "a link"}), tmp_path)
    assert has_changed(source({**GOOD, "a/x.jpg": b"x"}), tmp_path)


@pytest.mark.parametrize("problem", [DENIED, "a dangling link"])
def test_the_old_content_of_an_image_stays_while_it_cannot_be_had(tmp_path: Path, problem) -> None:
    sync(source(GOOD), tmp_path)
    change = sync(
        source({**GOOD, "a/1.jpg": problem}, {"a/1.jpg": "2"}), tmp_path, max_unreadable=1
    )
    assert not change and change.unreadable == 1
    assert held(tmp_path) == GOOD
    assert problems(tmp_path) == {"a/1.jpg": str(problem)}
    assert not sync(source(GOOD), tmp_path), "with the old etag it is as it was"
    assert problems(tmp_path) == {}


def test_above_the_share_nothing_changes(tmp_path: Path) -> None:
    sync(source(GOOD), tmp_path)
    before = (tmp_path / manifest.NAME).read_bytes()
    bad = {f"b/{number}.jpg": DENIED for number in range(3)}
    with pytest.raises(
        SourceError, match=r"3 or more of 12 .*max_unreadable \(0\.2\).*b/0.jpg: 403"
    ):
        sync(source(GOOD | bad), tmp_path, max_unreadable=0.2)
    assert (tmp_path / manifest.NAME).read_bytes() == before
    assert sync(source(GOOD | bad), tmp_path, max_unreadable=0.25).unreadable == 3


def test_a_single_image_never_stops_a_small_source_unless_none_may_be_lost(tmp_path: Path) -> None:
    few = {"a/1.jpg": b"1", "a/2.jpg": DENIED}
    assert sync(source(few), tmp_path, max_unreadable=0.2).unreadable == 1
    with pytest.raises(SourceError, match=r"max_unreadable \(0\)"):
        sync(source(few), tmp_path, max_unreadable=0)


def test_a_source_of_which_nothing_can_be_had_stops_whatever_the_share(tmp_path: Path) -> None:
    bad = dict.fromkeys(GOOD, DENIED)
    with pytest.raises(SourceError, match="none of 9 images can be had"):
        sync(source(bad), tmp_path, max_unreadable=1)
    assert not (tmp_path / manifest.NAME).exists()


def test_a_source_that_goes_down_midway_is_one_error(tmp_path: Path) -> None:
    many = {f"a/{number:03}.jpg": b"1" for number in range(200)}
    down = {f"b/{number:03}.jpg": GivenUpError("503") for number in range(IN_A_ROW)}
    with pytest.raises(SourceError, match=f"down: {IN_A_ROW} images in a row"):
        sync(source(many | down), tmp_path, max_unreadable=0.5)
    down.popitem()
    assert sync(source(many | down), tmp_path, max_unreadable=0.5).unreadable == IN_A_ROW - 1


def test_another_error_of_the_source_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expired"):
        sync(source({**GOOD, "a/x.jpg": SourceError("expired")}), tmp_path, max_unreadable=1)


def test_an_annotation_file_that_cannot_be_had_stops_the_run(tmp_path: Path) -> None:
    labels = "list_eval_partition.txt"
    with pytest.raises(SourceError, match="403"):
        sync(source({**GOOD, labels: DENIED}), tmp_path, max_unreadable=1)
