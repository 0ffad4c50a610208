"""Which files of a source are images, which are ignored, and what is told of the rest."""

import io

import pytest
from PIL import Image

from irgen.catalog.images.codecs import list_formats
from irgen.catalog.sources.selection import (
    START,
    Candidate,
    Selection,
    describe_left_out,
    find_ignored,
    is_image,
    is_vague,
    make_empty_error,
    make_rules,
    select_files,
    starts_like_image,
)
from irgen.errors import SourceError

READ = [
    *("jpg", "JPEG", "jpe", "jfif", "JIF", "pjpeg", "Png", "apng", "gif", "bmp", "tif", "TIFF"),
    *("webp", "ppm", "pgm", "pbm", "avif", "HEIC", "heif", "hif", "jxl", "jp2", "j2k", "mpo"),
]
OTHERS = ["cr2", "NEF", "dng", "mp4", "MOV", "svg", "pdf", "txt", "json", "xmp", "zip", "icloud"]


def image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    return file.getvalue()


def select(files: dict[str, bytes], *patterns: str) -> Selection[bytes]:
    candidates = [Candidate(path, b, lambda b=b: b[:START]) for path, b in files.items()]
    return select_files(candidates, make_rules(patterns))


@pytest.mark.parametrize("ending", READ)
def test_image_endings_count_whatever_their_case(ending: str) -> None:
    assert is_image(f"cat/1.{ending}") and is_image(f"cat/.NET shirt.{ending} ")


@pytest.mark.parametrize("ending", OTHERS)
def test_other_endings_do_not_count_and_are_not_looked_into(ending: str) -> None:
    assert not is_image(f"cat/1.{ending}") and not is_vague(f"cat/1.{ending}")


@pytest.mark.parametrize(
    "name", ["1", "1.jpg_large", "1.jpg@2x", "1.jpg?w=20", "1.jpg~", "1.5 mm", "1.jpg (1)", "1.dat"]
)
def test_a_name_that_says_nothing_is_decided_by_content(name: str) -> None:
    files = {f"cat/{name}": image("JPEG"), f"dog/{name}": b"just some text", f"owl/{name}": b""}
    selection = select(files)
    assert [*selection.files] == [f"cat/{name}"]
    assert sum(selection.skipped.values()) == 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF"])
def test_every_format_that_is_read_is_known_by_its_first_bytes(kind: str) -> None:
    assert kind in list_formats()
    assert starts_like_image(image(kind)[:START])


@pytest.mark.parametrize("start", [b"", b"P", b"MIT License", b"PK\x03\x04" + bytes(60)])
def test_other_content_is_no_image(start: bytes) -> None:
    assert not starts_like_image(start)


@pytest.mark.parametrize(
    "path",
    [
        *("cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/1.jpg", "$RECYCLE.BIN/S-1/$R1.jpg"),
        *("$Recycle.Bin/1.jpg", ".Trash-1000/files/1.jpg", ".Trashes/1.jpg", "lost+found/1.jpg"),
        *("cat/._1.jpg", "__MACOSX/cat/1.jpg", ".git/1.png", "cat/.thumbnails/1.jpg", "Thumbs.db"),
        *(".@__thumb/s800.jpg", ".picasaoriginals/1.jpg", "cat/.ipynb_checkpoints/1.jpg"),
        *(
            "cat/.trashed-17-1.jpg",
            "@Recycle/1.jpg",
            ".DS_Store",
            "desktop.ini",
            "x/#snapshot/1.jpg",
        ),
        "two\nlines/@eaDir/1.jpg",
    ],
)
def test_what_systems_leave_among_images_is_ignored(path: str) -> None:
    assert find_ignored(path, make_rules())
    assert not select({path: image("JPEG")}).files


def test_names_that_begin_with_a_dot_or_a_sign_are_read() -> None:
    names = [".NET shirt/1.jpg", "cat/.5mm bolt.jpg", "#1 dad/1.jpg", "@home/1.jpg", "$5/1.jpg"]
    assert [*select(dict.fromkeys(names, b"")).files] == names


def test_a_user_adds_patterns_and_takes_one_back() -> None:
    files = dict.fromkeys(["#a/1.jpg", "Drafts/2.jpg", "a/x_thumb.jpg", ".cache/3.jpg"], b"")
    selection = select({**files, "a/4.jpg": b""}, "#a/", "drafts/", "*_thumb.*", "!.cache/")
    assert [*selection.files] == [".cache/3.jpg", "a/4.jpg"]
    assert selection.ignored == {"#a/": 1, "drafts/": 1, "*_thumb.*": 1}
    assert [*select({".git/1.jpg": b""}, "!*").files] == [".git/1.jpg"]


def test_a_pattern_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(SourceError, match=r"download: ignore: .*'!'.*as in a .gitignore"):
        make_rules(["!"])


def test_what_is_left_out_is_counted_by_ending_and_by_pattern() -> None:
    names = ["a/1.jpg", "a/2.CR2", "a/3.cr2", "README", "a/@eaDir/1.jpg/s.jpg", "b/@eaDir/2.jpg"]
    selection = select({**dict.fromkeys(names, b""), "classes.txt": b""})
    assert selection.skipped == {".cr2": 2, "": 1, ".txt": 1}
    assert selection.ignored == {"@eaDir/": 2}
    assert describe_left_out(selection.skipped, selection.ignored) == [
        "not read: 2 .cr2, 1 without an ending, 1 .txt",
        "ignored: 2 @eaDir/",
    ]


def test_many_endings_are_summed_up() -> None:
    lines = describe_left_out({f".{letter}": 2 for letter in "abcdefg"}, {})
    assert lines == ["not read: 2 .a, 2 .b, 2 .c, 2 .d, 2 .e and 4 of other kinds"]


def test_an_empty_source_says_what_is_in_it_and_what_would_count() -> None:
    error = make_empty_error("shop", select({"a/1.zip": b"", "b/2.cr2": b""}))
    assert "shop holds no image (not read: 1 .zip, 1 .cr2); JPEG" in str(error)
    assert "unpack the archives in it" in str(error)
    assert "(it is empty)" in str(make_empty_error("shop", select({})))
