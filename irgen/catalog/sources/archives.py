"""Tar and zip archives as sources: looked through whole before the first image is taken, never
unpacked to disk."""

import gzip
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
    check_key,
    common_top,
    counted,
    empty_folders,
    may_count,
)
from irgen.errors import SourceError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
GZIP = b"\x1f\x8b"
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,  # zipfile: a password, or a method it does not know
)


@dataclass(frozen=True)
class Member:
    """One member of an archive; ``trouble`` says why no archive with it is taken."""

    name: str
    size: int
    is_folder: bool
    trouble: str | None


# A walk goes through an archive once, in order; a member's bytes are read before the next is drawn.
Members = Iterator[tuple[Member, Callable[[], bytes]]]
Walk = Callable[[Path], Members]


def list_archive(path: Path, limit: int, name: str = "") -> Listing:
    """Every image of the archive; a single top folder is left out of the keys. The annotation files
    of a published set are listed as its images are.

    The archive is gone through twice: once to see that it is whole, safe and not larger than
    ``limit`` bytes unpacked, once to read. Where it names a path twice the last one counts, as tar
    itself has it. Raises SourceError, which calls the archive by ``name`` (its path), naming the
    member: a link or device, a path that leaves the archive, a password; or if the archive is
    damaged, too large, or without images.
    """
    said = name or str(path)
    walk = _walk_zip if path.name.lower().endswith(".zip") else _walk_tar
    with _damage_told(said):
        files, folders_ = _inspect(walk(path), said, limit)
    images = {name: files[name] for name in counted(files, said)}
    top = common_top(images, folders_)
    keys = {place: check_key(member.removeprefix(top), said) for member, place in images.items()}
    empty = [folder.removeprefix(top) for folder in empty_folders(images, folders_)]
    return Listing(
        entries=_entries(walk(path), said, keys),
        count=len(keys),
        empty_folders=tuple(check_key(folder, said) for folder in empty if folder),
    )


def _inspect(members: Members, path: str, limit: int) -> tuple[dict[str, int], list[str]]:
    """Name → place in the archive of every file that may count, and the names of the folders."""
    files: dict[str, int] = {}
    folders = []
    total = 0
    for place, (member, _) in enumerate(members):
        name = _safe_name(member, path)
        total += member.size
        if total > limit:
            raise SourceError(
                f"{path} unpacks to more than {limit / 1e9:g} GB; "
                "raise download.max_gigabytes if that is meant"
            )
        if member.is_folder:
            folders.append(name)
        elif may_count(name):
            files[name] = place
    return files, folders


def _safe_name(member: Member, path: str) -> str:
    """The member's name with ``.`` parts taken out. Raises SourceError if it is not safe."""
    name, trouble = member.name, member.trouble
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or PureWindowsPath(name).is_absolute():
        trouble = "has an absolute path"
    elif ".." in parts:
        trouble = "leads out of the archive"
    elif member.size < 0:
        trouble = "has a size below zero"
    if trouble:
        raise SourceError(f"{path}: member {name!r} {trouble}; the archive is refused whole")
    clean = str(PurePosixPath(name))
    return "" if clean == "." else clean


def _entries(members: Members, path: str, keys: dict[int, str]) -> Iterator[Entry]:
    with _damage_told(path):
        for place, (_, read) in enumerate(members):
            if place in keys:
                yield Entry(keys[place], None, partial(_told, path, read))


def _told(path: str, read: Callable[[], bytes]) -> bytes:
    with _damage_told(path):
        return read()


@contextmanager
def _damage_told(path: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"{path} is truncated or damaged ({reason}); fetch or pack it again"
        ) from error


def _walk_tar(path: Path) -> Members:
    with _open_plain(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else tarfile remembers every member for ever
            plain = info.isreg() or info.isdir()
            trouble = None if plain else "is a link" if _is_link(info) else "is a device or pipe"
            member = Member(info.name, info.size, info.isdir(), trouble)
            yield member, partial(_tar_bytes, archive, info)
        _check_end(file, archive.offset)


def _is_link(info: tarfile.TarInfo) -> bool:
    return info.issym() or info.islnk()


def _tar_bytes(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None, "only regular members are read"
    content = file.read()
    if len(content) != info.size:
        raise tarfile.ReadError(f"{info.name} is cut short")
    return content


def _check_end(file: IO[bytes], offset: int) -> None:
    """tarfile takes a broken header, or no header, for the end: see that the end mark is there."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("the end mark is missing")
    for _ in range(64):  # megabytes of padding at most; gzip checks its sum at its very end
        if not file.read(1 << 20):
            break


@contextmanager
def _open_plain(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a tar file, unpacked on the way if they are gzipped, whatever its name says."""
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
            member = Member(name, info.file_size, name.endswith("/"), _zip_trouble(info))
            yield member, partial(archive.read, info)


def _zip_trouble(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
    if info.flag_bits & 1:
        return "is protected by a password: pack it without one"
    if kind == stat.S_IFLNK:
        return "is a link"
    return None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a device or pipe"
