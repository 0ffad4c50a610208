"""A tar or zip archive as a source: checked whole before an image is read, never unpacked."""

import posixpath
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath

from irgen.catalog.sources import zips
from irgen.catalog.sources.keys import name_files
from irgen.catalog.sources.listing import Entry, Listing, refuse
from irgen.catalog.sources.members import AUTO, Member, Members, choose_encoding
from irgen.catalog.sources.selection import START, Candidate, Selection, make_rules, select_files
from irgen.catalog.sources.tars import walk_tar
from irgen.catalog.sources.zips import read_names, walk_zip
from irgen.errors import SourceError, UnreadableError

ENDINGS = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
    ".zip",
)
UNPACKERS = {  # archives that are not read, and what unpacks them
    **dict.fromkeys((".tar.zst", ".tzst"), "tar --zstd -xf"),
    **dict.fromkeys((".7z", ".001", ".z01"), "7z x"),
    ".rar": "unrar x",
    ".gz": "gunzip",
}
MOST_LINKS = 8  # in a row, from a link to its file
DAMAGE = (tarfile.TarError, *zips.DAMAGE)


@dataclass(frozen=True)
class Contents:
    """Members of an archive. `positions`: of all files, by name; `links`: name that a link leads
    to; `problems`: why a file cannot be read."""

    positions: dict[str, int]
    links: dict[str, str]
    problems: dict[str, str]


def list_archive(
    path: Path,
    limit: int,
    name: str = "",
    *,
    ignore: Sequence[str] = (),
    name_encoding: str = AUTO,
) -> Listing:
    """List every image of the archive, and the annotation files of a data set.

    The archive is read twice: once to check that it is whole, safe and at most `limit` bytes
    unpacked, once to read images. Where it names a path twice the last one counts, as in tar
    itself. A link counts as the member it leads to. An image that cannot be read, such as a
    protected one, has a problem.

    `name` (default: the path) is its name in errors; `ignore`: patterns of what to leave out;
    `name_encoding`: of names that are not UTF-8. Raises SourceError for a member outside of the
    archive, and if the archive is damaged, too large, or without images.
    """
    name = name or str(path)
    contents, is_zip = Contents({}, {}, {}), path.name.lower().endswith(".zip")
    with _report_damage(name):
        encoding = choose_encoding(read_names(path), name_encoding) if is_zip else "utf-8"
        walk = partial(walk_zip, path, encoding) if is_zip else partial(walk_tar, path)
        selection = select_files(_inspect(walk(), name, limit, contents), make_rules(ignore))
    if not is_zip:
        encoding = choose_encoding(map(_encode, contents.positions), name_encoding)
    members = {_decode(member, encoding): member for member in selection.files}
    names = name_files(
        Selection(
            files=members,
            folders=[_decode(folder, encoding) for folder in selection.folders],
            skipped=selection.skipped,
            ignored=selection.ignored,
        ),
        name,
    )
    positions: dict[int, list[str]] = {}
    refused = []
    for key, file in names.paths.items():
        member = _follow(members[file], contents)
        if problem := _find_problem(member, contents):
            refused.append(refuse(key, problem))
        else:
            positions.setdefault(contents.positions[member], []).append(key)
    return Listing(
        entries=chain(_entries(walk(), name, positions), refused),
        count=len(names.paths),
        empty_folders=names.empty_folders,
        top=names.top,
        skipped=selection.skipped,
        ignored=selection.ignored,
        notes=_note_encoding(encoding, name),
    )


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _decode(name: str, encoding: str) -> str:
    """Return a name of a tar, whose bytes that are not UTF-8 stand there as surrogates."""
    return name if _is_text(name) else _encode(name).decode(encoding)


def _is_text(name: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in name)


def _note_encoding(encoding: str, archive: str) -> tuple[str, ...]:
    if encoding == "utf-8":
        return ()
    text = f"the names in {archive} are read as {encoding}; if they look wrong, set "
    return (f"{text}download.name_encoding",)


def _inspect(
    members: Members, archive: str, limit: int, contents: Contents
) -> Iterator[Candidate[int]]:
    """Yield the members, and note in `contents` what they are."""
    total = 0
    for position, member in enumerate(members):
        name = _safe_name(member, archive)
        total += member.size
        if total > limit:
            raise SourceError(
                f"{archive} unpacks to more than {limit / 1e9:g} GB; "
                "raise download.max_gigabytes if that is meant"
            )
        if name and not member.is_folder:
            _note_member(name, position, member, contents)
        if name:
            yield Candidate(name + "/" * member.is_folder, position, partial(_peek, member))


def _note_member(name: str, position: int, member: Member, contents: Contents) -> None:
    contents.positions[name] = position
    for table, value in ((contents.links, member.link), (contents.problems, member.problem)):
        table.pop(name, None)  # of a member of that name before
        if value is not None:
            table[name] = value


def _peek(member: Member) -> bytes:
    if member.problem is not None or member.link is not None:
        return b""
    with suppress(UnreadableError):
        return member.read(START)
    return b""


def _follow(name: str, contents: Contents) -> str:
    """Return the name of the member that a link leads to, or the last one on the way."""
    for _ in range(MOST_LINKS):
        name = posixpath.normpath(contents.links[name]) if name in contents.links else name
    return name


def _find_problem(name: str, contents: Contents) -> str | None:
    if name in contents.links or name not in contents.positions:
        return f"it is a link to {name}, which is not in the archive: pack the file itself (tar -h)"
    return contents.problems.get(name)


def _safe_name(member: Member, archive: str) -> str:
    """Return the member's name without `.` parts. Raises SourceError if the member is not safe."""
    name, problem = member.name, None
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


def _entries(members: Members, archive: str, keys: dict[int, list[str]]) -> Iterator[Entry]:
    with _report_damage(archive):
        for position, member in enumerate(members):
            read = cache(partial(_read_member, archive, member.read))  # links share it
            for key in keys.get(position, ()):
                yield Entry(key, None, read)


def _read_member(archive: str, read: Callable[[int], bytes]) -> bytes:
    with _report_damage(archive):
        return read(-1)


@contextmanager
def _report_damage(archive: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"{archive} is truncated or damaged ({reason}); fetch or pack it again"
        ) from error
