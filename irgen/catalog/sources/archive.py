"""A tar or zip archive as a source: checked whole before an image is read, never unpacked."""

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from irgen.catalog.sources.listing import (
    Entry,
    Listing,
    count_skipped,
    is_candidate,
    map_keys,
    refuse,
)
from irgen.errors import SourceError, UnreadableError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
GZIP = b"\x1f\x8b"
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # zipfile: a password, or a method it does not know
)


@dataclass(frozen=True)
class Member:
    """One member of an archive. `problem`: why it cannot be read."""

    name: str
    size: int
    is_folder: bool
    problem: str | None


# A walk goes through an archive once, in order; a member's bytes are read before the next is drawn.
Members = Iterator[tuple[Member, Callable[[], bytes]]]


def list_archive(path: Path, limit: int, name: str = "") -> Listing:
    """List every image of the archive, and the annotation files of a data set.

    The archive is read twice: once to check that it is whole, safe and at most `limit` bytes
    unpacked, once to read images. Where it names a path twice the last one counts, as in tar
    itself. `name` (default: the path) is its name in errors. An image that is a link, a device or
    protected has a problem. Raises SourceError for a member outside of the archive, and if the
    archive is damaged, too large, or without images.
    """
    name = name or str(path)
    walk = _walk_zip if path.name.lower().endswith(".zip") else _walk_tar
    with _report_damage(name):
        files, folders, others = _inspect(walk(path), name, limit)
    keys, empty_folders, top = map_keys(files, folders, name)
    key_of = {files[member]: key for key, member in keys.items()}
    entries = _entries(walk(path), name, key_of)
    return Listing(
        entries=entries,
        count=len(keys),
        empty_folders=empty_folders,
        top=top,
        skipped=count_skipped(others),
    )


def _inspect(
    members: Members, archive: str, limit: int
) -> tuple[dict[str, int], list[str], list[str]]:
    """Return the position in the archive of every candidate file, and the names of the folders and
    of the other files."""
    files: dict[str, int] = {}
    folders, others = [], []
    total = 0
    for position, (member, _) in enumerate(members):
        name = _safe_name(member, archive)
        total += member.size
        if total > limit:
            raise SourceError(
                f"{archive} unpacks to more than {limit / 1e9:g} GB; "
                "raise download.max_gigabytes if that is meant"
            )
        if member.is_folder:
            folders.append(name)
        elif is_candidate(name):
            files[name] = position
        else:
            others.append(name)
    return files, folders, others


def _safe_name(member: Member, archive: str) -> str:
    """Return the member's name without `.` parts. Raises SourceError if the member is not safe."""
    name = member.name
    problem = None
    if name.startswith(("/", "\\")) or PureWindowsPath(name).is_absolute():
        problem = "has an absolute path"
    elif ".." in name.replace("\\", "/").split("/"):
        problem = "leads out of the archive"
    elif member.size < 0:
        problem = "has a size below zero"
    if problem:
        raise SourceError(f"{archive}: member {name!r} {problem}; the archive is refused whole")
    clean = str(PurePosixPath(name))
    return "" if clean == "." else clean


def _entries(members: Members, archive: str, keys: dict[int, str]) -> Iterator[Entry]:
    with _report_damage(archive):
        for position, (member, read) in enumerate(members):
            if position not in keys:
                continue
            if member.problem is not None:
                yield refuse(keys[position], member.problem)
            else:
                yield Entry(keys[position], None, partial(_read_member, archive, read))


def _read_member(archive: str, read: Callable[[], bytes]) -> bytes:
    with _report_damage(archive):
        return read()


@contextmanager
def _report_damage(archive: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"{archive} is truncated or damaged ({reason}); fetch or pack it again"
        ) from error


def _walk_tar(path: Path) -> Members:
    with _open_plain(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps every member in memory
            plain = info.isreg() or info.isdir()
            link = info.issym() or info.islnk()
            problem = None if plain else _link(info) if link else "it is a device or pipe"
            member = Member(info.name, info.size, info.isdir(), problem)
            yield member, partial(_tar_bytes, archive, info)
        _check_end(file, archive.offset)


def _link(info: tarfile.TarInfo) -> str:
    return f"it is a link to {info.linkname!r}: pack the file itself (tar -h --hard-dereference)"


def _tar_bytes(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None, "only regular members are read"
    content = file.read()
    if len(content) != info.size:
        raise tarfile.ReadError(f"{info.name} is cut short")
    return content


def _check_end(file: IO[bytes], offset: int) -> None:
    """Check that the end mark is there: tarfile takes a broken header, or none, for the end."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("the end mark is missing")
    for _ in range(64):  # megabytes of padding at most; gzip checks its sum at its very end
        if not file.read(1 << 20):
            break


@contextmanager
def _open_plain(path: Path) -> Iterator[IO[bytes]]:
    """Open a tar file, gzipped or not, whatever its name says."""
    with path.open("rb") as raw:
        packed = raw.read(len(GZIP)) == GZIP
        raw.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=raw) as file:
                yield file  # type: ignore[misc]
        else:
            yield raw


def _walk_zip(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.replace("\\", "/")  # as some packers on Windows write
            member = Member(name, info.file_size, name.endswith("/"), _zip_problem(info))
            yield member, partial(_zip_bytes, archive, info)


def _zip_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(info)
    except DAMAGE as error:  # of this member alone: the directory of a zip has said where it is
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(f"it is damaged ({reason}): pack it again") from None


def _zip_problem(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
    if info.flag_bits & 1:
        return "it is protected by a password: pack it without one"
    if kind == stat.S_IFLNK:
        return "it is a link: pack the file itself"
    return None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "it is a device or pipe"
