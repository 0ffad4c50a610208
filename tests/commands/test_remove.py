"""``irgen remove``: every option, and every mistake."""

import io
import json

import pytest

from irgen.commands.remove import read_ids

CATS = [f"cats/{number:02d}.png" for number in range(0, 40, 4)]


def test_named_images_are_gone_and_the_pipelines_index_keeps_them(project, run, read_index):
    outcome = run("remove", CATS[0], "dogs/03.png")
    assert outcome.out == "2 images removed. index holds 38 now.\n"
    assert "index is a new copy of data/index" in outcome.err
    assert not {CATS[0], "dogs/03.png"} & set(read_index(project / "index")["id"])
    assert len(read_index(project / "data" / "index")) == 40
    again = run("remove", CATS[1])
    assert (again.out, again.err) == ("1 image removed. index holds 37 now.\n", "")


@pytest.mark.parametrize("from_stdin", [True, False])
def test_ids_may_be_listed_one_a_line(project, run_ok, read_index, monkeypatch, from_stdin):
    text = f"{CATS[0]}\n\n{CATS[1]}\r\n{CATS[0]}\n"
    (project / "gone.txt").write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    line = run_ok("remove", "--ids-from", "-" if from_stdin else "gone.txt", CATS[1], CATS[2])
    assert line.startswith("3 images removed")
    assert set(CATS) - set(read_index(project / "index")["id"]) == set(CATS[:3])


def test_an_id_may_hold_a_line_separator_and_the_file_a_byte_order_mark(tmp_path):
    ids = ["a\u2028b.jpg", "c\x85d.jpg", "e\x0bf.jpg"]
    (tmp_path / "gone.txt").write_text("\n".join(ids), encoding="utf-8-sig")
    assert read_ids(str(tmp_path / "gone.txt")) == ids


def test_a_filter_removes_only_when_it_is_confirmed(project, run_ok, refused, read_index):
    line = refused("remove", "--allow", "label = 'cats'")
    assert "selects 10 of 40 images: 'cats/00.png', 'cats/04.png', 'cats/08.png' and 7 more" in line
    assert "--yes" in line and not (project / "index").exists()
    assert run_ok("remove", "--allow", "label = 'cats'", "--yes").startswith("10 images removed")
    assert set(read_index(project / "index")["label"]) == {"dogs"}


def test_a_filter_that_selects_nothing_removes_nothing(project, run_ok):
    line = run_ok("remove", "--allow", "price > 99")
    assert line == "0 images removed. data/index holds 40 now.\n"
    assert not (project / "index").exists()


def test_an_index_of_which_everything_was_removed_finds_nothing_and_takes_images(project, run_ok):
    assert run_ok("remove", "--allow", "price >= 0", "--yes").startswith("40 images removed")
    assert "no match" in run_ok("search", "photos/003.png")
    run_ok("compact")
    assert "no match" in run_ok("search", "photos/003.png", "--allow", "label = 'cats'")
    run_ok("add", "photos/003.png")
    (query,) = json.loads(run_ok("search", "photos/003.png", "--json"))
    assert [hit["id"] for hit in query["hits"]] == ["photos/003.png"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name ids"),
        ((CATS[0], "--allow", "true"), "name ids"),
        (("--ids-from", "nobody.txt"), "nobody.txt"),
        (("--ids-from", "photos"), "photos"),
        (("--ids-from", "photos/003.png"), "cannot be read as a list of ids"),
        ((CATS[0], "nobody"), "not in the index: 'nobody'; nothing was removed"),
        (("",), "not in the index"),
        (("--allow", "label =", "--yes"), "label ="),
        (("--allow", "colour = 1", "--yes"), "label, sha256"),
        ((CATS[0], "--index", "data/index"), "made by the pipeline"),
    ],
)
def test_a_mistake_is_told_in_one_line(refused, arguments, says):
    assert says in refused("remove", *arguments)


def test_what_is_removed_already_is_unknown(project, run_ok, refused):
    run_ok("remove", CATS[0])
    assert "not in the index" in refused("remove", CATS[0])
