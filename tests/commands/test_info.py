"""``irgen info``: what it says of an index, and what it does not let pass."""

import json

import pytest

from irgen.index.index import Index


def lines(text: str) -> dict[str, str]:
    """Return the value of each line by its name."""
    return dict(line.split("  ", 1) for line in text.splitlines())


def said(run_ok, *arguments: object) -> dict[str, str]:
    return {name: text.strip() for name, text in lines(run_ok("info", *arguments)).items()}


def test_an_index_says_what_it_holds_and_how_it_is_searched(project, run_ok):
    info = said(run_ok)
    assert info["index"] == "data/index"
    assert info["images"] == "40 can be found"
    assert info["trained on"] == "20 images"
    assert info["since compacted"] == "0 images added"
    assert info["codes"] == "3 levels of 8; embeddings of 6 numbers"
    assert info["metadata"].startswith("path (String), label (String)")
    assert info["search"].startswith("600 beams, 50 candidates, 600 fresh beams")
    assert info["same label"] == "learnt from 9 validation images, off by 5% on average"
    assert info["pipeline"] == "this is its index; changes are made to a copy, index"
    assert info["words"] == "answered by full-text search"
    assert "verified" not in info


def test_changes_are_counted_until_they_are_compacted(project, run_ok):
    run_ok("add", "photos")
    run_ok("remove", "dogs/03.png", "photos/003.png")
    info = said(run_ok)
    assert (info["index"], info["images"]) == ("index", "41 can be found")
    assert info["since compacted"] == "2 images added, 1 row of removed images"
    assert info["pipeline"] == "copied from data/index, which is unchanged"
    assert info["by hand"] == "2 images added, 0 replaced, 1 removed"
    run_ok("compact")
    assert said(run_ok)["by hand"] == "2 images added, 0 replaced, 1 removed"
    assert said(run_ok)["since compacted"] == "0 images added"


def test_json_says_the_same_to_machines(project, run_ok):
    run_ok("remove", "dogs/03.png")
    description = json.loads(run_ok("info", "--json"))
    assert (description["folder"], description["images"], description["dead_rows"]) == (
        "index",
        39,
        1,
    )
    assert (description["outdated"], description["verified"]) == (False, False)
    assert json.loads(run_ok("info", "--json", "--verify"))["verified"] is True
    assert set(description["bytes"]) == {"base", "changes", "models"}


def test_every_file_is_read_if_asked(project, run_ok, refused):
    assert said(run_ok, "--verify")["verified"] == "every file is as it was written"
    path = project / "data" / "index" / "base" / "1" / "embeddings.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert said(run_ok)["index"] == "data/index"  # what is not read is not noticed
    assert "embeddings.npy is damaged" in refused("info", "--verify")


def test_it_tells_that_the_pipeline_made_another_index_and_what_to_do(
    project, run, run_ok, make_other_index, read_index
):
    run_ok("add", "photos/100.png")
    (project / "data" / "index").rename(project / "data" / "old")
    make_other_index(project / "data" / "index", list(range(30)))
    state = (
        "index is a copy of what data/index was before: irgen refresh brings index up to date and "
        "keeps what was changed by hand"
    )
    outcome = run("search", "photos/003.png")
    assert (outcome.status, outcome.err) == (0, f"irgen search: {state}\n")
    assert said(run_ok)["pipeline"] == state
    description = json.loads(run_ok("info", "--json"))
    assert description["outdated"] is True
    assert description["edits"] == {"added": 1, "replaced": 0, "removed": 0}
    assert run_ok("refresh") == (
        "index is a copy of data/index now, with what was changed by hand: 1 image added or "
        "replaced, 0 removed; it holds 31.\n"
    )
    assert len(read_index(project / "index")) == 31


def test_an_index_that_was_not_made_here_is_not_compared_with_the_pipelines(
    project, run_ok, tmp_path, make_other_index
):
    make_other_index(tmp_path / "own", [1, 2, 3])
    assert "pipeline" not in said(run_ok, "--index", tmp_path / "own")


def test_without_a_calibration_it_says_why(project, run_ok, make_other_index):
    make_other_index(project / "plain", [1, 2], None)
    assert said(run_ok, "--index", "plain")["same label"] == (
        "not known: the index was created without a calibration"
    )


def test_an_interrupt_is_told(project, run, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Index, "verify", interrupted)
    assert run("info", "--verify").status == 130


@pytest.mark.parametrize("name", ["search", "add", "remove", "compact"])
def test_commands_before_any_index_say_how_to_make_one(tmp_path, monkeypatch, run, png, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(png(1))
    for command in ((name, "a.png") if name != "compact" else (name,), ("info",)):
        outcome = run(*command)
        assert (outcome.status, outcome.out) == (2, "")
        assert outcome.err == (
            f"irgen {command[0]}: there is no index at data/index: make one first (dvc repro "
            "index)\n"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
