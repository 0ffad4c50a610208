"""A local folder as a source."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from irgen.catalog.sources.local import list_folder
from irgen.errors import SourceError, UnreadableError

Png = Callable[[int], bytes]


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_images_are_listed_in_order_and_nothing_else(tmp_path: Path, png: Png) -> None:
    others = {"LICENSE": b"", ".DS_Store": b"", "cat/._1.png": b"", "__MACOSX/cat/1.png": b""}
    fill(tmp_path, {"dog/1.PNG": png(1), "cat/2.jpg": png(2), **others})
    fill(tmp_path, {".git/owl/1.png": png(3)})
    (tmp_path / "owl").mkdir()
    listing = list_folder(tmp_path)
    assert [(e.key, e.read()) for e in listing.entries] == [
        ("cat/2.jpg", png(2)),
        ("dog/1.PNG", png(1)),
    ]
    assert listing.count == 2
    assert listing.empty_folders == ("owl/",)


def test_a_single_top_folder_is_left_out(tmp_path: Path, png: Png) -> None:
    fill(tmp_path, {"set/cat/1.png": png(1), "set/dog/1.png": png(2), "README.md": b""})
    (tmp_path / "set" / "owl").mkdir()
    listing = list_folder(tmp_path)
    assert [entry.key for entry in listing.entries] == ["cat/1.png", "dog/1.png"]
    assert listing.empty_folders == ("owl/",)


def test_the_etag_changes_with_size_or_time(tmp_path: Path, png: Png) -> None:
    fill(tmp_path, {"cat/1.png": png(1)})
    (before,) = list_folder(tmp_path).entries
    os.utime(tmp_path / "cat" / "1.png", ns=(0, 12345))
    (after,) = list_folder(tmp_path).entries
    assert before.etag != after.etag == f"{len(png(1))}-12345"


def test_a_link_s_etag_is_that_of_the_file_it_leads_to(tmp_path: Path, png: Png) -> None:
    fill(tmp_path, {"cat/1.png": png(1)})
    (tmp_path / "cat" / "2.png").symlink_to("1.png")
    os.utime(tmp_path / "cat" / "2.png", ns=(0, 12345), follow_symlinks=False)
    file, link = list_folder(tmp_path).entries
    assert (link.etag, link.read()) == (file.etag, png(1))


def problems(folder: Path) -> dict[str, str]:
    return {entry.key: entry.problem for entry in list_folder(folder).entries if entry.problem}


def test_a_file_that_has_gone_since_cannot_be_had(tmp_path: Path, png: Png) -> None:
    fill(tmp_path, {"cat/1.png": png(1)})
    (entry,) = list_folder(tmp_path).entries
    (tmp_path / "cat" / "1.png").unlink()
    with pytest.raises(UnreadableError, match="No such file"):
        entry.read()


def test_links_inside_are_followed_once_and_links_out_have_a_problem(
    tmp_path: Path, png: Png
) -> None:
    root = fill(tmp_path / "in", {"cat/1.png": png(1), "dog/1.png": png(2)})
    fill(tmp_path / "out", {"x/9.png": png(9)})
    (root / "cat" / "loop").symlink_to(root, target_is_directory=True)
    (root / "cat" / "2.png").symlink_to(root / "cat" / "1.png")
    assert [e.key for e in list_folder(root).entries] == ["cat/1.png", "cat/2.png", "dog/1.png"]
    (root / "cat" / "3.png").symlink_to(tmp_path / "out" / "x" / "9.png")
    (root / "owl").symlink_to(tmp_path / "out" / "x", target_is_directory=True)
    reasons = problems(root)
    assert set(reasons) == {"cat/3.png", "owl"}
    assert all("outside of the source" in problem for problem in reasons.values())
    assert "out/x/9.png" in reasons["cat/3.png"]


def test_a_source_that_is_itself_a_link_is_fine(tmp_path: Path, png: Png) -> None:
    fill(tmp_path / "real", {"cat/1.png": png(1)})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list_folder(tmp_path / "link").count == 1


def test_an_empty_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no image"):
        list_folder(tmp_path)


def test_links_to_nothing_and_to_themselves_pipes_and_folders_have_a_problem(
    tmp_path: Path, png: Png
) -> None:
    fill(tmp_path, {"cat/1.png": png(1), "cat/folder.png/9.png": png(9)})
    (tmp_path / "cat" / "2.png").symlink_to("gone.png")
    (tmp_path / "cat" / "3.png").symlink_to("3.png")
    (tmp_path / "cat" / "notes.txt").symlink_to("gone.txt")
    os.mkfifo(tmp_path / "cat" / "4.png")
    reasons = problems(tmp_path)
    assert reasons["cat/2.png"].endswith("No such file or directory (gone.png, to which it links)")
    assert "symbolic links" in reasons["cat/3.png"]
    assert "pipe" in reasons["cat/4.png"]
    assert len(reasons) == 3
    assert "cat/folder.png/9.png" in [entry.key for entry in list_folder(tmp_path).entries]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_cannot_be_had(tmp_path: Path, png: Png) -> None:
    fill(tmp_path, {"cat/1.png": png(1)})
    (tmp_path / "cat" / "1.png").chmod(0)
    (entry,) = list_folder(tmp_path).entries
    with pytest.raises(UnreadableError, match="Permission denied"):
        entry.read()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_a_clear_error(tmp_path: Path, png: Png) -> None:
    fill(tmp_path, {"cat/1.png": png(1), "dog/1.png": png(2)})
    (tmp_path / "cat").chmod(0)
    with pytest.raises(SourceError, match=r"cat cannot be read .*grant read access"):
        list_folder(tmp_path)
    (tmp_path / "cat").chmod(0o400)  # its names may be read, but not what they are
    assert "Permission denied" in problems(tmp_path)["cat/1.png"]
    (tmp_path / "cat").chmod(0o700)


def test_names_that_are_not_utf8_survive_escaped(tmp_path: Path, png: Png) -> None:
    names = [b"caf\xe9/1.png", b"cat/\xff.png", b"cat/\xfe.png"]
    fill(tmp_path, {"cat/1.png": png(1), **{os.fsdecode(name): png(2) for name in names}})
    contents = {entry.key: entry.read() for entry in list_folder(tmp_path).entries}
    escaped = ["caf\\udce9/1.png", "cat/\\udcfe.png", "cat/\\udcff.png"]
    assert contents == {"cat/1.png": png(1), **dict.fromkeys(escaped, png(2))}
