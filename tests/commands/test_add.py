"""``irgen add``: every option, what it leaves, and every mistake."""

import contextlib
import hashlib
import json
import shutil

import polars as pl
import pytest

from irgen.catalog.sources.selection import make_rules
from irgen.commands import add, cli
from irgen.commands.image_files import list_images
from irgen.index import decoded_image
from irgen.index.index import Index


def first_hit_id(run_ok, *arguments: object) -> str:
    """Return the id of the first hit."""
    return json.loads(run_ok("search", *arguments, "--json"))[0]["hits"][0]["id"]


def test_what_is_added_is_found_then_removed_then_gone(project, run_ok):
    assert first_hit_id(run_ok, "photos/100.png") != "photos/100.png"
    assert run_ok("add", "photos/100.png") == "1 image added. index holds 41 now.\n"
    assert first_hit_id(run_ok, "photos/100.png") == "photos/100.png"
    assert run_ok("remove", "photos/100.png") == "1 image removed. index holds 40 now.\n"
    for _ in range(2):
        hits = json.loads(run_ok("search", "photos/100.png", "-k", 41, "--json"))[0]["hits"]
        assert len(hits) == 40 and "photos/100.png" not in {hit["id"] for hit in hits}
        run_ok("compact")


def test_the_first_change_makes_a_copy_and_leaves_the_pipelines_index_as_it_is(
    project, run, read_index
):
    from_pipeline = project / "data" / "index"
    before = {p: p.read_bytes() for p in from_pipeline.rglob("*") if p.is_file()}
    first, second = run("add", "photos/100.png"), run("add", "photos/101.png")
    assert "index is a new copy of data/index" in first.err and second.err == ""
    assert {p: p.read_bytes() for p in from_pipeline.rglob("*") if p.is_file()} == before
    assert len(read_index(project / "index")) == 42 and len(read_index(from_pipeline)) == 40


def test_a_folder_is_added_with_what_the_index_keeps_of_every_file(
    project, run_ok, read_index, png
):
    photos = project / "photos"
    (photos / "deeper").mkdir()
    (photos / "deeper" / "b.png").write_bytes(png(102))
    (photos / "notes.txt").write_text("no image")
    (photos / "._100.png").write_bytes(png(103))
    (photos / "003.png").unlink()
    assert run_ok("add", "photos").startswith("3 images added")
    _, left_out = list_images([photos], make_rules())
    assert left_out == [f"{photos}: not read: 1 .txt", f"{photos}: ignored: 1 ._*"]
    rows = (
        read_index(project / "index")
        .filter(pl.col("id").str.starts_with("photos"))
        .rows(named=True)
    )
    for row, (name, number) in zip(
        rows, [("100.png", 100), ("101.png", 101), ("deeper/b.png", 102)], strict=True
    ):
        assert row == {
            "id": f"photos/{name}",
            "path": f"photos/{name}",
            "label": None,
            "sha256": hashlib.sha256(png(number)).hexdigest(),
            "width": 5,
            "height": 6,
            "price": None,
        }


def test_the_projects_ignore_patterns_hold_for_added_folders_too(root, tmp_path):
    assert add.read_ignore(tmp_path) == ()
    text = (root / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(
        text.replace("download:\n", "download:\n  ignore: [a/]\n")
    )
    assert add.read_ignore(tmp_path) == ("a/",)


def test_ids_are_paths_from_the_base(project, run_ok, read_index):
    run_ok("add", "photos/100.png", project / "photos" / "101.png", "--base", "photos")
    assert {"100.png", "101.png"} <= set(read_index(project / "index")["id"])


TABLES = {
    "by path": ("photos/", "path,label,price\nphotos/100.png,cats,7\n./photos//101.png,dogs,\n"),
    "by id": ("photos/", "id,label,price\nphotos/101.png,dogs,\nphotos/100.png,cats,7\n"),
    "both": (
        "#",
        "path,id,price,label\nphotos/100.png,#100.png,7,cats\nphotos/101.png,#101.png,,dogs\n",
    ),
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "spreadsheet"])
@pytest.mark.parametrize("table", TABLES)
def test_metadata_comes_from_a_table(project, run_ok, read_index, table, kind):
    start, text = TABLES[table]
    file = project / f"about.{'parquet' if kind == 'parquet' else 'csv'}"
    if kind == "csv":
        file.write_text(text)
    elif kind == "spreadsheet":
        file.write_text(text.replace(",", ";").replace("\n", "\r\n"), encoding="utf-16")
    else:
        pl.read_csv(text.encode()).write_parquet(file)
    run_ok("add", "photos/100.png", "photos/101.png", "--metadata", file)
    rows = read_index(project / "index").filter(pl.col("id").str.starts_with(start))
    assert rows.select("id", "label", "price").rows() == [
        (f"{start}100.png", "cats", 7),
        (f"{start}101.png", "dogs", None),
    ]
    assert rows["path"].to_list() == ["photos/100.png", "photos/101.png"]
    assert first_hit_id(run_ok, "photos/101.png", "--allow", "label = 'dogs'") == f"{start}101.png"


def test_metadata_is_read_in_the_types_of_the_index(project, run_ok, read_index, refused):
    table = pl.DataFrame({"path": ["photos/100.png"], "price": [7.0], "label": [3.0]})
    table.write_parquet(project / "about.parquet")
    run_ok("add", "photos/100.png", "--metadata", "about.parquet")
    text = "path;price;label\r\nphotos/101.png; 8.0;007\r\nphotos/003.png;n/a;\r\n"
    (project / "about.csv").write_bytes(text.encode("utf-8-sig"))
    run_ok("add", "photos/101.png", "photos/003.png", "--metadata", "about.csv")
    rows = read_index(project / "index").filter(pl.col("id").str.starts_with("photos"))
    assert rows.sort("id").select("price", "label").rows() == [(None, None), (7, "3"), (8, "007")]
    (project / "about.csv").write_text("path,price\nphotos/100.png,7.5\n")
    line = refused("add", "photos/100.png", "--upsert", "--metadata", "about.csv")
    assert "column 'price' of the index holds whole numbers, and not '7.5'" in line


def test_a_users_column_with_a_name_of_ours_is_another_column(png, make_index, tmp_path):
    items = pl.DataFrame({"id": ["a"], "width": pl.Series([5], dtype=pl.Int32)})
    items = items.with_columns(pl.lit(1).alias("metadata.width"), pl.lit("x").alias(""))
    make_index(tmp_path / "index", [png(1)], items, None)
    (tmp_path / "b.png").write_bytes(png(2))
    (tmp_path / "about.csv").write_text("path,role,width,\nb.png,train,70,y\n")
    arguments = ["add", "b.png", "--base", ".", "--metadata", "about.csv", "--index", "index"]
    with contextlib.chdir(tmp_path):
        assert cli.main(arguments) == 0
    with Index.open(tmp_path / "index") as index:
        assert index.view.take(index.view.find(["b.png"])).rows() == [("b.png", 5, 70, "y")]


def test_known_images_are_replaced_or_passed_over_as_told(project, run_ok, png):
    run_ok("add", "photos")
    (project / "photos" / "100.png").write_bytes(png(200))
    (project / "photos" / "102.png").write_bytes(png(102))
    assert run_ok("add", "photos", "--skip-known") == (
        "1 image added; 3 left out, known already. index holds 44 now.\n"
    )
    query = project / "query.png"
    query.write_bytes(png(200))
    assert first_hit_id(run_ok, "query.png") != "photos/100.png"
    assert run_ok("add", "photos", "--upsert") == (
        "4 images added; 4 in place of older ones. index holds 44 now.\n"
    )
    assert first_hit_id(run_ok, "query.png") == "photos/100.png"


def test_images_added_in_several_batches_are_all_there(
    project, run_ok, read_index, png, monkeypatch
):
    monkeypatch.setattr(add, "BATCH", 2)
    for number in range(5):
        (project / "photos" / f"2{number}.png").write_bytes(png(200 + number))
    run_ok("add", *sorted(project.glob("photos/2*.png")))
    assert len(read_index(project / "index")) == 45
    assert all(first_hit_id(run_ok, f"photos/2{n}.png") == f"photos/2{n}.png" for n in range(5))


def test_unreadable_images_are_passed_over_only_if_told_to(project, run, refused, read_index):
    (project / "photos" / "broken.png").write_bytes(b"no image")
    (project / "photos" / "empty.png").write_bytes(b"")
    outcome = run("add", "photos")
    assert outcome.status == 2 and not (project / "index").exists()
    lines = outcome.err.splitlines()
    assert [line.split(": ")[1] for line in lines[:2]] == ["photos/broken.png", "photos/empty.png"]
    assert "2 of 5 images cannot be read, so nothing was added" in lines[2]
    outcome = run("add", "photos", "--skip-unreadable")
    assert outcome.status == 0
    assert outcome.out == "3 images added; 2 left out, unreadable. index holds 43 now.\n"
    assert "left out photos/broken.png: not an image" in outcome.err


def test_what_was_added_before_an_image_was_lost_stays_and_the_rest_is_soon_there(
    project, run, run_ok, read_index, png, monkeypatch
):
    """Images are checked before the first is added, but one may go in between."""
    monkeypatch.setattr(add, "BATCH", 2)
    names = [f"photos/2{number}.png" for number in range(5)]
    for number, name in enumerate(names):
        (project / name).write_bytes(png(200 + number))
    true = add.add_images

    def put(*arguments):
        (project / names[3]).unlink(missing_ok=True)
        true(*arguments)

    monkeypatch.setattr(add, "add_images", put)
    outcome = run("add", *names)
    assert outcome.status == 2
    assert outcome.err.splitlines()[-2:] == [
        "irgen add: 2 images added before it ended; repeat with --skip-known to add the rest",
        "irgen add: photos/23.png: No such file or directory",
    ]
    assert len(read_index(project / "index")) == 42
    monkeypatch.setattr(add, "add_images", true)
    (project / names[3]).write_bytes(png(203))
    assert run_ok("add", *names, "--skip-known").startswith("3 images added; 2 left out")


def test_an_interrupted_add_says_how_far_it_came(project, run, read_index, monkeypatch, png):
    monkeypatch.setattr(add, "BATCH", 1)
    true, calls = decoded_image.add_file_columns, []

    def columns(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(decoded_image, "add_file_columns", columns)
    outcome = run("add", "photos", "--upsert")
    assert outcome.status == 130
    assert outcome.err.splitlines()[-2:] == [
        "irgen add: 2 images added before it ended; repeat with --upsert to add the rest",
        "irgen add: interrupted",
    ]
    assert len(read_index(project / "index")) == 42


def test_nothing_to_add_makes_no_copy(project, run_ok):
    shutil.copytree(project / "photos", project / "dogs")
    (project / "dogs" / "003.png").rename(project / "dogs" / "03.png")
    line = run_ok("add", "dogs/03.png", "--skip-known")
    assert line == "0 images added; 1 left out, known already. data/index holds 40 now.\n"
    assert not (project / "index").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nobody.png",), "nobody.png is not there"),
        (("data",), "data holds no image"),
        (("photos", "--base", "data"), "--base"),
        (("photos", "--base", "photos/100.png"), "--base"),
        (("photos", "--metadata", "nobody.csv"), "nobody.csv"),
        (("photos", "--metadata", "photos/100.png"), "neither a .csv nor a .parquet"),
        (("photos", "--index", "nowhere"), "no index at nowhere"),
        (("photos", "--index", "photos"), "photos is not an index"),
        (("photos", "--index", "data/index"), "made by the pipeline"),
    ],
)
def test_a_mistake_is_told_in_one_line(refused, arguments, says):
    assert says in refused("add", *arguments)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("name,label\nphotos/100.png,a\n", "no column path or id"),
        ("path,label\nphotos/101.png,a\n", "no row of path 'photos/100.png'"),
        ("path,label\nphotos/100.png,a\nphotos/100.png,b\n", "more than one row"),
        ("path,colour\nphotos/100.png,red\n", "'colour' that the index does not have"),
        ("path,price\nphotos/100.png,cheap\n", "price"),
        ("path,id\nphotos/100.png,\n", "no id of 'photos/100.png'"),
        ("path,id\nphotos/100.png,dogs/03.png\n", "in the index already: 'dogs/03.png'"),
        ("", "about.csv"),
    ],
)
def test_metadata_that_does_not_fit_is_told_in_one_line(project, refused, table, says):
    (project / "about.csv").write_text(table)
    assert says in refused("add", "photos/100.png", "--metadata", "about.csv")


def test_two_images_of_one_id_are_refused(project, refused):
    (project / "about.csv").write_text("path,id\nphotos/100.png,a\nphotos/101.png,a\n")
    files = ("photos/100.png", "photos/101.png")
    assert "given twice: 'a'" in refused("add", *files, "--metadata", "about.csv")


def test_a_known_image_is_refused_with_the_remedies(project, run_ok, refused):
    run_ok("add", "photos/100.png")
    line = refused("add", "photos/100.png", "photos/101.png")
    assert "'photos/100.png'" in line and "--upsert" in line and "--skip-known" in line
