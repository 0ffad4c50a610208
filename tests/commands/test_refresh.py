"""``irgen refresh``, and the commands that refresh the index on their own."""

import hashlib
import shutil
from pathlib import Path

import pytest

from irgen.catalog.pictures import Pictures
from irgen.catalog.uploads import read_upload, upload_path
from irgen.index import copying
from irgen.index.index import Index


@pytest.fixture
def outdated(project: Path, run_ok, make_other_index) -> Path:
    """Return a project with an addition and a removal, after the pipeline made another index."""
    run_ok("add", "photos/100.png")
    run_ok("remove", "dogs/01.png")
    shutil.rmtree(project / "data" / "index")
    make_other_index(project / "data" / "index", range(30))
    return project


def test_it_says_what_it_did_and_then_that_there_is_nothing_to_do(outdated, run_ok):
    assert run_ok("refresh") == (
        "index is a copy of data/index now, with what was changed by hand: 1 image added or "
        "replaced, 1 removed; it holds 30.\n"
    )
    assert run_ok("refresh") == "index is up to date with data/index.\n"


def test_without_changes_by_hand_there_is_nothing_to_do(project, run_ok):
    assert run_ok("refresh") == (
        "There is no index: nothing was changed by hand, and searches use data/index.\n"
    )
    assert not (project / "index").exists()


@pytest.mark.parametrize(
    ("command", "images"), [(("add", "photos/101.png"), 31), (("remove", "dogs/02.png"), 29)]
)
def test_changes_bring_the_index_up_to_date_first(outdated, run, command, images):
    outcome = run(*command)
    assert outcome.status == 0
    assert outcome.out.endswith(f"index holds {images} now.\n")
    assert outcome.err == (
        f"irgen {command[0]}: index is a copy of data/index now, with what was changed by hand: 1 "
        "image added or replaced, 1 removed; it holds 30\n"
    )


def test_a_change_of_a_copy_that_cannot_be_refreshed_is_made_all_the_same(outdated, run, run_ok):
    (outdated / "index" / copying.SOURCE).unlink()
    outcome = run("remove", "dogs/02.png")
    assert outcome.status == 0 and "index holds 39 now" in outcome.out
    assert (
        "index is still a copy of another index: index was made by an earlier irgen" in outcome.err
    )
    assert "mv index index-old" in outcome.err


def test_files_that_are_added_are_kept_and_their_pictures_outlive_the_originals(
    project, run_ok, png
):
    sha256 = hashlib.sha256(png(100)).hexdigest()
    run_ok("add", "photos/100.png")
    inode = upload_path(project, sha256).stat().st_ino
    assert inode != (project / "photos" / "100.png").stat().st_ino
    run_ok("add", "photos/100.png", "--upsert")
    assert upload_path(project, sha256).stat().st_ino == inode, "it is not copied again"
    (project / "photos" / "100.png").unlink()
    assert read_upload(project, sha256) == png(100)
    assert Pictures(project).read({"sha256": sha256, "path": "photos/100.png"}) == png(100)


def test_files_of_an_index_elsewhere_are_not_kept(project, run_ok, make_other_index):
    make_other_index(project / "elsewhere", [1, 2])
    run_ok("add", "photos/100.png", "--index", "elsewhere")
    assert not (project / "uploads").exists()


def test_a_forgotten_image_is_in_no_note_of_what_was_copied(project, run_ok, make_other_index):
    from irgen.catalog.forget import Traces
    from irgen.commands.forget import remove_from_index

    run_ok("add", "photos/100.png")
    sha256s = {
        name: copying.read_source(project / "index").filter(id=name)["sha256"][0]
        for name in ("dogs/03.png", "dogs/05.png")
    }
    remove_from_index(project, Traces(frozenset(sha256s), frozenset([sha256s["dogs/03.png"]])))
    ids = copying.read_source(project / "index")["id"].to_list()
    assert len(ids) == 39 and "dogs/03.png" not in ids
    with Index.open(project / "index") as index:
        assert index.view.find(["dogs/03.png", "dogs/05.png"])[0] == -1
    assert "1 image added, 0 replaced, 0 removed" in run_ok("info")
