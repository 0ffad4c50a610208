"""``irgen add --server`` and ``irgen remove --server``."""

from collections.abc import Callable

import pytest

from irgen.commands import cli, service_changes


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run ``irgen`` with arguments; return its status and its output."""

    def command(*arguments: object) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return command


@pytest.fixture
def photos(tmp_path, monkeypatch, png):
    """Three photos and a list of them, in the current folder."""
    folder = tmp_path / "elsewhere"
    (folder / "photos").mkdir(parents=True)
    for number in (100, 101, 102):
        (folder / "photos" / f"{number}.png").write_bytes(png(number))
    (folder / "list.csv").write_text(
        "path,id,price,label\nphotos/100.png,first,3.5,cats\nphotos/101.png,second,,dogs\n"
        "photos/102.png,third,n/a,\n"
    )
    monkeypatch.chdir(folder)
    return folder / "photos"


def test_files_are_added_in_requests_with_what_a_list_says_of_them(
    writable, run, photos, monkeypatch
):
    monkeypatch.setattr(service_changes, "IMAGES", 2)
    status, out, _ = run("add", "photos", "--metadata", "list.csv", "--server", writable.url)
    assert status == 0
    assert out == f"3 images added. The index of {writable.url} holds 43 now.\n"
    asked = {"id": ["first", "second", "third"]}
    items = writable.get("/v1/items", params=asked).json()["items"]
    values = [(item["metadata"]["price"], item["metadata"]["label"]) for item in items]
    assert values == [(3.5, "cats"), (None, "dogs"), (None, None)]
    assert [item["metadata"]["path"] for item in items] == [
        f"photos/{number}.png" for number in (100, 101, 102)
    ]
    status, _, err = run("add", "photos", "--metadata", "list.csv", "--server", writable.url)
    assert status == 2 and "in the index already: 'first', 'second'" in err
    status, out, _ = run("add", "photos", "--server", writable.url, "--upsert")
    assert status == 0 and out.startswith("3 images added. ")
    status, out, _ = run("add", "photos", "--server", writable.url, "--upsert")
    assert out.startswith("3 images added; 3 in place of older ones. ")


def test_images_are_removed_by_id_and_by_expression(writable, run, monkeypatch):
    monkeypatch.setattr(service_changes, "IDS", 4)
    status, out, _ = run("remove", "dogs/01.png", "dogs/02.png", "--server", writable.url)
    assert (status, out) == (0, f"2 images removed. The index of {writable.url} holds 38 now.\n")
    cats = ("remove", "--allow", "label = 'cats'", "--server", writable.url)
    status, _, err = run(*cats)
    assert status == 2 and "selects 10 of 38 images" in err and "--yes" in err
    status, out, _ = run(*cats, "--yes")
    assert status == 0 and out.startswith("10 images removed. ") and "holds 28 now" in out
    status, _, err = run("remove", "nothing", "--server", writable.url)
    assert status == 2 and "'nothing'" in err


def test_what_only_a_folder_can_do_is_refused(run, photos):
    for option in ("--skip-known", "--skip-unreadable", "--index=index"):
        status, _, err = run("add", "photos", "--server", "http://127.0.0.1:9", option)
        assert status == 2 and "--server excludes" in err


def test_a_file_that_cannot_be_read_is_named_and_what_was_added_before_stays(
    writable, run, photos, monkeypatch
):
    monkeypatch.setattr(service_changes, "IMAGES", 2)
    (photos / "103.png").symlink_to("/dev/zero")
    status, _, err = run("add", "photos", "photos/103.png", "--server", writable.url)
    assert status == 2 and "photos/103.png: it is a device, not a file" in err
    assert "2 images added before it ended; repeat with --upsert to add the rest" in err
