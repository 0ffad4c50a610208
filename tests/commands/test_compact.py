"""``irgen compact``: smaller on the disk, and the same to whoever searches."""

import errno
import json

from irgen.index import base_files, store
from irgen.index.index import Index


def test_what_was_removed_takes_no_more_space_and_answers_stay(project, run, run_ok):
    run_ok("add", "photos")
    run_ok("remove", *(f"dogs/{number:02d}.png" for number in (1, 2, 3, 5, 6, 7)))
    before = run_ok("search", "photos/100.png", "-k", 40, "--json")
    outcome = run("compact")
    assert outcome.status == 0 and outcome.err == ""
    assert outcome.out.startswith("index was compacted: 37 images in ")
    description = json.loads(run_ok("info", "--json"))
    assert (description["base"], description["added"], description["dead_rows"]) == (2, 0, 0)
    assert [path.name for path in (project / "index" / "base").iterdir()] == ["2"]
    after = run_ok("search", "photos/100.png", "-k", 40, "--json")
    assert json.loads(after) == json.loads(before)


def test_what_is_compact_is_left_alone_and_no_copy_is_made(project, run_ok):
    line = "data/index is compact: nothing was added or removed since it was written.\n"
    assert run_ok("compact") == line
    assert not (project / "index").exists()
    run_ok("remove", "dogs/03.png")
    run_ok("compact")
    assert run_ok("compact") == line.replace("data/", "")


def test_the_pipelines_own_index_is_not_compacted(refused):
    assert "made by the pipeline" in refused("compact", "--index", "data/index")


def test_a_reader_goes_on_while_another_compacts(project, run_ok):
    run_ok("add", "photos")
    with Index.open(project / "index") as reader:
        before = reader.search_ids(["photos/100.png"], k=5)
        run_ok("compact")
        assert reader.search_ids(["photos/100.png"], k=5).ids.tolist() == before.ids.tolist()


def test_many_changes_are_compacted_without_being_asked(project, run_ok, monkeypatch):
    monkeypatch.setattr(store, "MANY_CHANGES", 2)
    run_ok("add", "photos/003.png", "photos/100.png")
    assert json.loads(run_ok("info", "--json"))["base"] == 1
    run_ok("add", "photos/101.png")
    facts = json.loads(run_ok("info", "--json"))
    assert (facts["base"], facts["added"]) == (2, 0)


def test_a_compaction_that_fails_by_itself_is_a_plain_note(project, run, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "MANY_CHANGES", 1)
    monkeypatch.setattr(base_files, "write", fail)
    run("remove", "dogs/01.png")
    outcome = run("remove", "dogs/02.png")
    assert outcome.status == 0 and "1 image removed" in outcome.out
    (line,) = outcome.err.splitlines()
    assert line.startswith("irgen remove: the change was made, but the index was not compacted: ")
    assert "No space left on device" in line
