"""Images keep their keys when the source's single top folder gains or loses a neighbour."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from irgen.catalog import manifest
from irgen.catalog.sources.archive import list_archive
from irgen.catalog.sources.listing import Source
from irgen.catalog.sources.local import list_folder
from irgen.catalog.sync import has_changed, sync
from irgen.errors import SourceError

Png = Callable[[int], bytes]


def sync_archive(folder: Path, files: dict[str, bytes]) -> tuple[int, int, int]:
    """Pack the files, sync them into ``folder``; return how many are new, changed and gone."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    source = Source(name="shop.zip", stamp="1", load=lambda: list_archive(path, 10**9))
    change = sync(source, folder)
    return change.new, change.changed, change.gone


def keys(folder: Path) -> list[str]:
    return manifest.read(folder)["key"].to_list()


@pytest.fixture
def photos(png: Png) -> dict[str, bytes]:
    return {"photos/cat/1.png": png(1), "photos/dog/2.png": png(2)}


@pytest.mark.parametrize("neighbour", ["more/cat/3.png", "owl/3.png", "photos/3.png", "3.png"])
def test_a_neighbour_of_the_top_folder_renames_no_image(
    tmp_path: Path, photos: dict[str, bytes], png: Png, neighbour: str
) -> None:
    folder = tmp_path / "copy"
    assert sync_archive(folder, photos) == (2, 0, 0)
    assert sync_archive(folder, photos | {neighbour: png(3)}) == (1, 0, 0)
    own = neighbour.removeprefix("photos/")
    assert keys(folder) == sorted(["cat/1.png", "dog/2.png", own])
    assert sync_archive(folder, photos) == (0, 0, 1)
    assert keys(folder) == ["cat/1.png", "dog/2.png"]


def test_an_empty_neighbour_renames_no_image(tmp_path: Path, photos: dict[str, bytes]) -> None:
    folder = tmp_path / "copy"
    sync_archive(folder, photos)
    assert sync_archive(folder, photos | {"empty/": b""}) == (0, 0, 0)
    assert keys(folder) == ["cat/1.png", "dog/2.png", "empty/"]


def test_a_neighbour_that_is_left_alone_keeps_its_name(
    tmp_path: Path, photos: dict[str, bytes], png: Png
) -> None:
    folder = tmp_path / "copy"
    sync_archive(folder, photos)
    sync_archive(folder, photos | {"more/cat/3.png": png(3)})
    assert sync_archive(folder, {"more/cat/3.png": png(3)}) == (0, 0, 2)
    assert keys(folder) == ["more/cat/3.png"]


def test_of_two_top_folders_the_one_that_stays_keeps_its_name(
    tmp_path: Path, photos: dict[str, bytes], png: Png
) -> None:
    folder = tmp_path / "copy"
    sync_archive(folder, photos | {"more/cat/3.png": png(3)})
    assert sync_archive(folder, photos) == (0, 0, 1)
    assert keys(folder) == ["photos/cat/1.png", "photos/dog/2.png"]


def test_a_top_folder_with_another_name_renames_no_image(
    tmp_path: Path, photos: dict[str, bytes], png: Png
) -> None:
    folder = tmp_path / "copy"
    sync_archive(folder, photos)
    renamed = {name.replace("photos/", "photos-v2/"): png for name, png in photos.items()}
    assert sync_archive(folder, renamed) == (0, 0, 0)
    assert sync_archive(folder, renamed | {"more/cat/3.png": png(3)}) == (1, 0, 0)
    assert keys(folder) == ["cat/1.png", "dog/2.png", "more/cat/3.png"]


def test_two_images_of_one_name_are_refused_with_both_names(
    tmp_path: Path, photos: dict[str, bytes], png: Png
) -> None:
    folder = tmp_path / "copy"
    sync_archive(folder, photos)
    with pytest.raises(SourceError, match=r"photos/cat/1\.png and cat/1\.png .*rename one"):
        sync_archive(folder, photos | {"cat/1.png": png(3)})
    assert keys(folder) == ["cat/1.png", "dog/2.png"]


def test_a_folder_behaves_as_an_archive(tmp_path: Path, photos: dict[str, bytes], png: Png) -> None:
    root, copy = tmp_path / "shop", tmp_path / "copy"
    source = Source(name="shop", stamp=None, load=lambda: list_folder(root))

    def write(name: str, content: bytes) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    for name, content in photos.items():
        write(name, content)
    sync(source, copy)
    assert not has_changed(source, copy)
    write("more/cat/3.png", png(3))
    assert has_changed(source, copy)
    change = sync(source, copy)
    assert (change.new, change.gone) == (1, 0)
    assert not has_changed(source, copy)
    assert keys(copy) == ["cat/1.png", "dog/2.png", "more/cat/3.png"]
