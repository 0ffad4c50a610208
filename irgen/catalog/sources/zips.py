"""Walk through a zip file: names of any encoding, and every method of packing that can be read."""

import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath

import inflate64

from irgen.catalog.sources.members import Member, Members
from irgen.errors import SourceError, UnreadableError

UTF8, PROTECTED, FOLDER = 0x800, 0x1, 0x10  # flags of a member, attribute of a folder
DEFLATE64 = 9
READ = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, DEFLATE64}
METHODS = {1: "shrink", 6: "implode", 93: "zstd", 95: "xz", 96: "JPEG", 98: "PPMd", 99: "AES"}
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, OSError),
    ValueError,  # of a directory that says nonsense
    RuntimeError,  # zipfile: a method that it does not know
)
HEADER = 30  # bytes of a member's header, before its name
BLOCK = 1 << 16
END, END_BYTES = b"PK\x05\x06", 22 + 65535  # mark of the last record, and its largest size


def read_names(path: Path) -> list[bytes]:
    """Return the names that are not marked as UTF-8, as they are stored."""
    with open_zip(path) as archive:
        return [*filter(None, map(_get_raw_name, archive.infolist()))]


def walk_zip(path: Path, encoding: str = "utf-8") -> Members:
    """Yield the members in the order of the directory. `encoding`: of names that are not marked as
    UTF-8. Raises zipfile.BadZipFile, or another error of DAMAGE; SourceError for one of several
    parts."""
    with open_zip(path) as archive:
        for info in archive.infolist():
            raw = _get_raw_name(info)
            name = info.filename if raw is None else raw.decode(encoding)
            yield _make_member(archive, info, name.replace("\\", "/"))  # as Windows writes them


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip. Raises SourceError for one of several parts."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - END_BYTES))
        _, mark, end = file.read().rpartition(END)
    part = struct.unpack("<H", end[:2])[0] if mark and len(end) > 1 else 0
    if part not in (0, 0xFFFF):  # the latter: the zip64 record says
        raise SourceError(
            f"{path} is the last of {part + 1} parts: join them (zip -s 0 {path.name} --out "
            "whole.zip) and give the whole"
        )
    return zipfile.ZipFile(path)


def _get_raw_name(info: zipfile.ZipInfo) -> bytes | None:
    """Return a name that is not marked as UTF-8 as it is stored; zipfile takes it for cp437."""
    marked = info.flag_bits & UTF8 or info.filename != info.orig_filename
    return None if marked else info.orig_filename.encode("cp437")


def _make_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Member:
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
    is_folder = name.endswith("/") or (info.external_attr & FOLDER and not info.file_size)
    link = problem = None
    if info.flag_bits & PROTECTED:
        problem = "it is protected by a password: pack it without one"
    elif info.compress_type not in READ:
        method = METHODS.get(info.compress_type, f"number {info.compress_type}")
        problem = f"it is packed by the method {method}, which is not read here: pack it by deflate"
    elif kind == stat.S_IFLNK:
        link = _read_link(archive, info, name)
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "it is a device or pipe"
    return Member(
        name=name,
        size=info.file_size,
        is_folder=bool(is_folder),
        read=partial(_read, archive, info),
        problem=problem,
        link=link,
    )


def _read_link(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> str:
    try:
        target = _read(archive, info, -1).decode("utf-8", "replace")
    except UnreadableError:
        target = "a place that cannot be read"
    return f"{PurePosixPath(name).parent}/{target}"


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> bytes:
    """Return the first bytes of a member, or all (-1). Raises UnreadableError: others are sound."""
    try:
        if info.compress_type == DEFLATE64:
            return _read_deflate64(archive, info)
        with archive.open(info) as file:
            return file.read(size)
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(f"it is damaged ({reason}): pack it again") from error


def _read_deflate64(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the content of a member that Windows Explorer packed, beyond 2 GB; zipfile lacks the
    method."""
    assert archive.filename is not None, "it was opened by its path"
    inflater, content = inflate64.Inflater(), bytearray()
    for block in _read_packed(Path(archive.filename), info):
        content += inflater.inflate(block)
        if len(content) > info.file_size:
            break
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename!r}")
    return bytes(content)


def _read_packed(path: Path, info: zipfile.ZipInfo) -> Iterable[bytes]:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<HH", file.read(HEADER)[26:])
        file.seek(name + extra, 1)
        left = info.compress_size
        while left and (block := file.read(min(BLOCK, left))):
            left -= len(block)
            yield block
