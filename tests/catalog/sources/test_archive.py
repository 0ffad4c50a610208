"""Archives are read whole and safely, or refused with the member's name."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from irgen.catalog.sources.archive import list_archive
from irgen.catalog.sources.listing import Listing
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


def raw_zip(path: Path, files: dict[str, bytes], encoding: str) -> Path:
    """Write a zip whose names are in an old encoding, as other systems' packers do."""
    stand_ins = {
        f"{number:x>{len(name.encode(encoding))}}": name for number, name in enumerate(files)
    }
    with zipfile.ZipFile(path, "w") as archive:
        for stand_in, name in stand_ins.items():
            archive.writestr(stand_in, files[name])
    content = path.read_bytes()
    for stand_in, name in stand_ins.items():
        content = content.replace(stand_in.encode(), name.encode(encoding))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gbk", ["衬衫", "裤子"]),
        ("cp932", ["ソ帽", "靴下"]),  # a byte of it is a backslash
        ("cp949", ["셔츠", "바지"]),
        ("big5", ["襯衫", "褲子"]),
        ("cp866", ["Платье", "Рубашка"]),
        ("cp850", ["Käse", "Öl"]),
        ("utf-8", ["café", "衬衫"]),  # not marked as such
    ],
)
def test_names_of_a_zip_in_an_old_encoding_are_readable(
    tmp_path: Path, png: Png, encoding: str, names: list[str]
) -> None:
    files = {f"{name}/{number:08d}-{number}.png": png(number) for number, name in enumerate(names)}
    path = raw_zip(tmp_path / "set.zip", files, encoding)
    assert contents(path) == files
    notes = list_archive(path, GIGABYTE).notes
    assert bool(notes) == (encoding != "utf-8")
    assert not notes or "set download.name_encoding" in notes[0]


def test_the_encoding_of_names_can_be_set(tmp_path: Path, png: Png) -> None:
    path = raw_zip(tmp_path / "set.zip", {"Łódź/00000001.png": png(1)}, "cp852")
    listing = list_archive(path, GIGABYTE, name_encoding="cp852")
    assert [entry.key for entry in listing.entries] == ["Łódź/00000001.png"]
    with pytest.raises(SourceError, match=r"name_encoding.*not in 'klingon'.*cp932"):
        list_archive(path, GIGABYTE, name_encoding="klingon")


def test_names_of_a_tar_in_an_old_encoding_are_readable(tmp_path: Path, png: Png) -> None:
    with tarfile.open(tmp_path / "set.tar", "w", encoding="gbk") as archive:
        for number, name in enumerate(["衬衫/1.png", "裤子/2.png"]):
            info = tarfile.TarInfo(name)
            info.size = len(png(number))
            archive.addfile(info, io.BytesIO(png(number)))
    assert contents(tmp_path / "set.tar") == {"衬衫/1.png": png(0), "裤子/2.png": png(1)}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_tars_that_were_joined_are_read_whole(
    tmp_path: Path, png: Png, pack: Callable[[bytes], bytes]
) -> None:
    names = ["cat/1.png", "dog/2.png", "owl/3.png"]
    files = {name: png(number) for number, name in enumerate(names)}
    parts = [
        write_tar(tmp_path / f"{number}.tar", {name: content}).read_bytes()
        for number, (name, content) in enumerate(files.items())
    ]
    (tmp_path / "set.tar").write_bytes(b"".join(map(pack, parts)))
    assert contents(tmp_path / "set.tar") == files


def test_what_follows_the_end_of_a_tar_and_is_none_refuses_it(tmp_path: Path, png: Png) -> None:
    path = write_tar(tmp_path / "set.tar", {"cat/1.png": png(1)})
    path.write_bytes(path.read_bytes() + b"something else" * 100)
    with pytest.raises(SourceError, match="missing, or something else follows"):
        list_archive(path, GIGABYTE)
    with path.open("ab") as file:
        file.truncate(10240)
        file.truncate(10240 + (65 << 20))
    with pytest.raises(SourceError, match="64 MB of zeros"):
        list_archive(path, GIGABYTE)


def test_links_inside_an_archive_count_as_their_files(tmp_path: Path, png: Png) -> None:
    links = []
    targets = {"cat/2.png": "1.png", "dog/3.png": "../cat/2.png", "dog/4.png": "../store/x"}
    for name, target in targets.items():
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        links.append(info)
    hard = tarfile.TarInfo("dog/5.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "cat/1.png"
    gone = tarfile.TarInfo("dog/6.png")
    gone.type, gone.linkname = tarfile.SYMTYPE, "7.png"
    loop = tarfile.TarInfo("dog/8.png")
    loop.type, loop.linkname = tarfile.SYMTYPE, "8.png"
    files = {"cat/1.png": png(1), "store/x": png(9)}
    path = write_tar(tmp_path / "set.tar.gz", files, *links, hard, gone, loop)
    entries = {entry.key: entry for entry in list_archive(path, GIGABYTE).entries}
    problems = {key: entry.problem for key, entry in entries.items() if entry.problem}
    assert sorted(problems) == ["dog/6.png", "dog/8.png"]
    assert "is a link to dog/7.png, which is not in the archive" in problems["dog/6.png"]
    assert contents_of(list_archive(path, GIGABYTE)) == {
        **dict.fromkeys(["cat/1.png", "cat/2.png", "dog/3.png", "dog/5.png"], png(1)),
        **dict.fromkeys(["dog/4.png", "store/x"], png(9)),
    }


def contents_of(listing: Listing) -> dict[str, bytes]:
    return {entry.key: entry.read() for entry in listing.entries if entry.read}


def test_a_label_and_folder_lists_of_gnu_tar_are_no_images(tmp_path: Path, png: Png) -> None:
    label, folder = tarfile.TarInfo("Backup of May"), tarfile.TarInfo("cat/")
    label.type, folder.type = b"V", b"D"
    path = write_tar(tmp_path / "set.tar", {"cat/1.png": png(1)}, label, folder)
    assert contents(path) == {"cat/1.png": png(1)}


def set_method(path: Path, method: int) -> Path:
    """Change the method of packing of every member in the directory and the headers."""
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + offset] = method
            start = content.find(mark, start + 4)
    path.write_bytes(content)
    return path


def test_a_zip_packed_by_deflate64_is_read_and_checked(tmp_path: Path, png: Png) -> None:
    files = {f"cat/{number}.png": png(number) for number in range(3)}
    path = set_method(write(tmp_path / "set.zip", files), 9)  # short streams are the same in both
    assert contents(path) == files
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 16] ^= 1  # the checksum
    path.write_bytes(content)
    entry = next(iter(list_archive(path, GIGABYTE).entries))
    with pytest.raises(UnreadableError, match="Bad CRC-32"):
        entry.read()


def test_a_method_that_is_not_read_is_named(tmp_path: Path, png: Png) -> None:
    path = set_method(write(tmp_path / "set.zip", {"cat/1.png": png(1)}), 93)
    (entry,) = list_archive(path, GIGABYTE).entries
    assert "packed by the method zstd, which is not read here" in str(entry.problem)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED])
def test_other_methods_of_a_zip_are_read(tmp_path: Path, png: Png, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as archive:
        archive.writestr("cat/1.png", png(1))
    assert contents(tmp_path / "set.zip") == {"cat/1.png": png(1)}


def test_the_last_of_several_parts_of_a_zip_names_the_remedy(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "set.zip", {"cat/1.png": png(1)})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x05\x06") + 4] = 2
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"is the last of 3 parts: join them \(zip -s 0 set.zip"):
        list_archive(path, GIGABYTE)


def test_a_size_that_a_zip_lies_about_never_brings_more(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "set.zip", {"cat/1.png": png(1) + bytes(100_000)})
    content = bytearray(path.read_bytes())
    offset = content.index(b"PK\x01\x02") + 24
    content[offset : offset + 4] = (50).to_bytes(4, "little")
    path.write_bytes(content)
    (entry,) = list_archive(path, GIGABYTE).entries
    with pytest.raises(UnreadableError, match="damaged"):
        entry.read()


def test_files_without_an_ending_and_rubbish_are_sorted_as_in_a_folder(
    tmp_path: Path, png: Png
) -> None:
    files = {"cat/1": png(1), "cat/README": b"text", "cat/@eaDir/1.png": png(2), "b.zip": b"PK"}
    for ending in ("tar", "zip"):
        listing = list_archive(write(tmp_path / f"set.{ending}", files), GIGABYTE)
        assert (listing.skipped, listing.ignored) == ({"": 1, ".zip": 1}, {"@eaDir/": 1})
        assert [entry.key for entry in listing.entries] == ["cat/1"]
