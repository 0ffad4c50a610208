"""Archives are read whole and safely, or refused with the member's name."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from irgen.catalog.sources.archive import list_archive
from irgen.errors import SourceError, UnreadableError

Png = Callable[[int], bytes]
GIGABYTE = 10**9
ENDINGS = ["tar", "tar.gz", "tgz", "zip"]


def write_tar(path: Path, files: dict[str, bytes], *special: tarfile.TarInfo) -> Path:
    packed = path.name.endswith(("gz", "tgz"))
    with tarfile.open(path, "w:gz" if packed else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return path


def write(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix != ".zip":
        return write_tar(path, files)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def contents(path: Path, limit: int = GIGABYTE) -> dict[str, bytes]:
    return {entry.key: entry.read() for entry in list_archive(path, limit).entries}


@pytest.mark.parametrize("ending", ENDINGS)
def test_images_come_out_as_they_went_in(tmp_path: Path, png: Png, ending: str) -> None:
    files = {
        "set/": b"",
        "set/LICENSE": b"free",
        "set/cat/": b"",
        "set/cat/1.png": png(1),
        "set/cat/._1.png": b"",
        "__MACOSX/cat/._1.png": b"",
        "./set/dog/" + "long" * 40 + ".JPG": png(2),
        "set/owl/": b"",
    }
    path = write(tmp_path / f"set.{ending}", files)
    assert contents(path) == {"cat/1.png": png(1), "dog/" + "long" * 40 + ".JPG": png(2)}
    listing = list_archive(path, GIGABYTE)
    assert (listing.count, listing.empty_folders) == (2, ("owl/",))


def test_a_member_named_twice_counts_as_the_last_one(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "set.tar", {"cat/1.png": png(1), "dog/1.png": png(2)})
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("cat/1.png")
        info.size = len(png(3))
        archive.addfile(info, io.BytesIO(png(3)))
    assert contents(path) == {"cat/1.png": png(3), "dog/1.png": png(2)}


def test_backslashes_of_a_windows_zip_are_folders(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "set.zip", {"cat\\1.png": png(1)})
    assert contents(path) == {"cat/1.png": png(1)}


@pytest.mark.parametrize("ending", ["tar", "tgz", "zip"])
@pytest.mark.parametrize(
    "name", ["../evil.png", "cat/../../evil.png", "/etc/evil.png", "C:\\evil.png", "..\\evil.png"]
)
def test_a_path_that_leaves_the_archive_refuses_it_whole(
    tmp_path: Path, png: Png, ending: str, name: str
) -> None:
    path = write(tmp_path / f"set.{ending}", {"cat/1.png": png(1), name: png(2)})
    with pytest.raises(SourceError, match=r"evil\.png.*refused whole"):
        list_archive(path, GIGABYTE)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device or pipe"),
        (tarfile.FIFOTYPE, "is a device or pipe"),
    ],
)
def test_links_and_devices_in_a_tar_have_a_problem_and_others_are_read(
    tmp_path: Path, png: Png, kind: bytes, said: str
) -> None:
    info = tarfile.TarInfo("cat/2.png")
    info.type, info.linkname = kind, "/etc/passwd"
    path = write_tar(tmp_path / "set.tar", {"cat/1.png": png(1)}, info)
    image, link = list_archive(path, GIGABYTE).entries
    assert (image.key, image.problem) == ("cat/1.png", None)
    assert link.key == "cat/2.png" and said in (link.problem or "")


def test_a_link_in_a_tar_that_is_no_image_is_left_out(tmp_path: Path, png: Png) -> None:
    info = tarfile.TarInfo("latest.txt")
    info.type, info.linkname = tarfile.SYMTYPE, "README"
    path = write_tar(tmp_path / "set.tar", {"cat/1.png": png(1)}, info)
    assert contents(path) == {"cat/1.png": png(1)}


def test_a_link_in_a_zip_has_a_problem(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("cat/2.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    (link,) = list_archive(tmp_path / "set.zip", GIGABYTE).entries
    assert "is a link" in (link.problem or "")


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"set.{ending}", {"cat/1.png": bytes(5000), "notes.txt": bytes(5000)})
    assert contents(path, 10_000)
    with pytest.raises(SourceError, match=r"unpacks to more.*max_gigabytes"):
        list_archive(path, 9_999)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_cut_anywhere_is_one_clear_error(tmp_path: Path, png: Png, ending: str) -> None:
    path = write(tmp_path / f"set.{ending}", {f"cat/{i}.png": png(i) for i in range(9)})
    whole = path.read_bytes()
    last = len(whole) - 1 if ending != "tar" else 9 * 1024 + 511  # before a tar's end mark is whole
    for length in {0, 1, 100, 512, 600, len(whole) // 2, last}:
        assert length < len(whole)
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match="truncated or damaged"):
            list_archive(path, GIGABYTE)


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "set.tar", {f"cat/{i}.png": png(i) for i in range(4)})
    whole = bytearray(path.read_bytes())
    whole[2048 + 150] ^= 0xFF  # inside the third header's checksum
    path.write_bytes(whole)
    with pytest.raises(SourceError, match="truncated or damaged"):
        list_archive(path, GIGABYTE)


def test_a_wrong_checksum_in_a_zip_spoils_that_image_alone(tmp_path: Path, png: Png) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.png", png(1))
        archive.writestr("cat/2.png", png(2))
    whole = bytearray(path.read_bytes())
    whole[60] ^= 0xFF
    path.write_bytes(whole)
    entries = iter(list_archive(path, GIGABYTE).entries)
    with pytest.raises(UnreadableError, match="damaged"):
        next(entries).read()
    assert next(entries).read() == png(2)


def test_a_password_is_a_problem(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "set.zip", {"cat/1.png": png(1)})
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    path.write_bytes(whole)
    (entry,) = list_archive(path, GIGABYTE).entries
    assert "protected by a password" in (entry.problem or "")


def test_the_content_decides_whether_a_tar_is_gzipped(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "set.tar", {"cat/1.png": png(1)})
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert contents(path) == {"cat/1.png": png(1)}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_without_images_is_a_clear_error(tmp_path: Path, ending: str) -> None:
    with pytest.raises(SourceError, match="holds no image"):
        list_archive(write(tmp_path / f"set.{ending}", {"README": b"hello"}), GIGABYTE)
