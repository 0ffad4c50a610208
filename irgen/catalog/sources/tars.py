"""Walk through a tar file: packed by gzip, bzip2 or xz, or not; several in a row count as one."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from irgen.catalog.sources.members import Member, Members

PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {  # by the first bytes, whatever the name says
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
BLOCK = 1 << 20
PADDING = 64  # megabytes of zeros at most, after an end mark
LABEL, FOLDER_LIST, CONTINUED = b"V", b"D", b"M"  # kinds of members that GNU tar alone knows


def walk_tar(path: Path) -> Members:
    """Yield the members in order. Raises tarfile.TarError, or another error of DAMAGE."""
    with _open_plain(path) as file:
        start: int | None = 0
        while start is not None:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps every member in memory
                    if info.type != LABEL:
                        yield _make_member(archive, info)
                start = _find_next(file, archive.offset)


def _make_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    is_folder = info.isdir() or info.type == FOLDER_LIST
    link = problem = None
    if info.islnk():
        link = info.linkname
    elif info.issym():
        link = f"{PurePosixPath(info.name).parent}/{info.linkname}"
    elif info.type == CONTINUED:
        problem = "it continues from another volume: join the volumes"
    elif not (info.isreg() or is_folder):
        problem = "it is a device or pipe"
    return Member(
        name=info.name,
        size=info.size,
        is_folder=is_folder,
        read=partial(_read, archive, info),
        problem=problem,
        link=link,
    )


def _read(archive: tarfile.TarFile, info: tarfile.TarInfo, size: int) -> bytes:
    file = archive.extractfile(info)
    assert file is not None, "only regular members are read"
    content = file.read() if size < 0 else file.read(size)
    if len(content) < (info.size if size < 0 else min(size, info.size)):
        raise tarfile.ReadError(f"{info.name} is cut short")
    return content


def _find_next(file: IO[bytes], offset: int) -> int | None:
    """Return where another tar begins after the end mark at `offset`; None: nowhere.

    Raises tarfile.ReadError if there is no end mark: tarfile takes a broken header for the end.
    """
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("the end mark is missing, or something else follows it")
    start = offset + tarfile.BLOCKSIZE
    for _ in range(PADDING):
        block = file.read(BLOCK)
        if rest := block.lstrip(b"\0"):
            return start + (len(block) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        if len(block) < BLOCK:  # gzip checks its sum at its very end
            return None
        start += len(block)
    raise tarfile.ReadError(f"more than {PADDING} MB of zeros follow its end mark")


@contextmanager
def _open_plain(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        unpack = next((PACKED[magic] for magic in PACKED if start.startswith(magic)), None)
        if unpack is None:
            yield raw
        else:
            with unpack(raw) as file:
                yield file
