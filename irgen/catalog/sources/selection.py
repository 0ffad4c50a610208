"""Select the images among the files of a source: by ending, by ignore patterns, and by content
where a name has no ending."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError
from PIL import Image

from irgen.catalog.datasets.annotations import is_annotation, select_annotations
from irgen.catalog.images.codecs import ENDINGS, list_formats
from irgen.errors import SourceError

IGNORED = (  # what systems and programs leave among images, as patterns of a .gitignore
    *("._*", ".DS_Store", "__MACOSX/", ".AppleDouble/", ".Spotlight-V100/", ".fseventsd/"),
    *(".TemporaryItems/", ".DocumentRevisions-V100/", "Network Trash Folder/", "Temporary Items/"),
    *("Thumbs.db", "ehthumbs*.db", "desktop.ini", "$RECYCLE.BIN/", "~$*"),
    "System Volume Information/",
    *(".Trash*", "lost+found/", ".nfs*", ".fuse_hidden*", ".recycle/", ".snapshot*/", ".zfs/"),
    *("@eaDir/", "#recycle/", "#snapshot/", "@tmp/", "@Recycle/", "@Recently-Snapshot/"),
    *(".@*", ".wdmc/", ".thumbnails/", ".picasaoriginals/", ".dtrash/", ".pending-*"),
    *(".stversions/", ".stfolder/", ".dropbox.cache/", ".sync/"),
    *(".git/", ".svn/", ".hg/", ".dvc/", ".cache/", ".venv/", "__pycache__/", "node_modules/"),
    *(".ipynb_checkpoints/", "*_$folder$", "_temporary/"),
)
IMAGES = {*ENDINGS, ".pjpeg", ".pjp", ".jfi", ".jps"}  # the latter are JPEG files, too
VAGUE = (".bin", ".dat", ".image", ".img")  # endings that say nothing
ENDING = re.compile(r"\.[a-z][a-z0-9-]{0,11}", re.ASCII)
START = 64  # bytes that tell what a file is
SHOWN = 5  # endings or patterns that a message names
V = TypeVar("V")


@dataclass(frozen=True)
class Rules:
    """Ignore patterns, ready to match. `patterns`: as the user knows them, row by row."""

    patterns: tuple[str, ...]
    spec: GitIgnoreSpec


class Candidate(NamedTuple, Generic[V]):
    """A file or, with a slash at its end, a folder of a source. `read_start`: returns the first
    bytes; call it before the next candidate is drawn."""

    path: str
    value: V
    read_start: Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class Selection(Generic[V]):
    """Files that count. `files`: values of the images, and a data set's annotation files, by path;
    `folders`: paths without a slash at their end; `skipped`: number of other files by ending, "" if
    a name has none; `ignored`: number of files and folders by ignore pattern."""

    files: dict[str, V]
    folders: list[str]
    skipped: Mapping[str, int]
    ignored: Mapping[str, int]


def make_rules(patterns: Sequence[str] = ()) -> Rules:
    """Return the rules of IGNORED and more `patterns`, written as in a .gitignore; case does not
    count, a leading # belongs to the pattern, and `!pattern` takes back an earlier one. Raises
    SourceError for a pattern that cannot be read."""
    every = (*IGNORED, *patterns)
    lines = [f"\\{line}" if line.startswith("#") else line for line in every]
    try:
        return Rules(every, GitIgnoreSpec.from_lines(line.lower() for line in lines))
    except GitIgnorePatternError as error:
        raise SourceError(
            f"download: ignore: {error}; write patterns as in a .gitignore, e.g. drafts/ or *.tmp"
        ) from None


def find_ignored(path: str, rules: Rules) -> tuple[str, str] | None:
    """Return the topmost part of a path that is ignored, and its pattern; None: nothing is.

    >>> find_ignored("a/@eaDir/1.jpg/S.jpg", make_rules()), find_ignored("a/1.jpg", make_rules())
    (('a/@eaDir/', '@eaDir/'), None)
    """
    if _find_pattern(path, rules) is None:
        return None
    ends = [match.end() for match in re.finditer("/", path)]
    tops = ((path[:end], _find_pattern(path[:end], rules)) for end in (*ends, len(path)))
    return next((top, rules.patterns[index]) for top, index in tops if index is not None)


def _find_pattern(path: str, rules: Rules) -> int | None:
    match = rules.spec.check_file(path.lower().replace("\n", " "))  # no pattern matches a line end
    return match.index if match.include else None


def select_files(candidates: Iterable[Candidate[V]], rules: Rules) -> Selection[V]:
    """Return the files that count, and how many do not. Of files with one path the last counts."""
    files: dict[str, V] = {}
    folders: list[str] = []
    skipped: Counter[str] = Counter()
    ignored: set[tuple[str, str]] = set()
    for path, value, read_start in candidates:
        if match := find_ignored(path, rules):
            ignored.add(match)
        elif path.endswith("/"):
            folders.append(path.rstrip("/"))
        elif is_image(path) or is_annotation(path) or _looks_like_image(path, read_start):
            files[path] = value
        else:
            skipped[get_ending(path)] += 1
    others = [path for path in files if is_annotation(path) and not is_image(path)]
    for path in set(others).difference(select_annotations(others)):
        del files[path]
        skipped[get_ending(path)] += 1
    return Selection(
        files=files,
        folders=folders,
        skipped=dict(skipped.most_common()),
        ignored=dict(Counter(pattern for _, pattern in ignored).most_common()),
    )


def get_ending(path: str) -> str:
    """Return what a file name ends in, in small letters with its dot; "" if that is no ending.

    >>> [get_ending(name) for name in ("a/1.JPG ", "1.jpg_large", "1.5 mm bolt", "a.b/1", ".jpg")]
    ['.jpg', '', '', '', '.jpg']
    """
    name = path.rpartition("/")[2].rstrip(" .").lower()
    match = ENDING.fullmatch(name[name.rfind(".") :]) if "." in name else None
    return match[0] if match else ""


def is_image(path: str) -> bool:
    """Tell whether a file's name ends as images do, whatever the case.

    >>> [is_image(path) for path in ("cat/1.JPG", "cat/.5mm bolt.webp", "LICENSE", "cat/1.txt")]
    [True, True, False, False]
    """
    return get_ending(path) in IMAGES


def is_vague(path: str) -> bool:
    """Tell whether a file's name says nothing of what the file is, so that its content decides.

    >>> [is_vague(path) for path in ("a/1.jpg_large", "a/0cc175b9", "a/1.DAT", "a/1.txt")]
    [True, True, True, False]
    """
    return get_ending(path) in ("", *VAGUE)


def starts_like_image(start: bytes) -> bool:
    """Tell whether a file that starts with these bytes may be an image that can be decoded."""
    formats = list_formats()  # loads the plug-ins
    Image.init()
    tests = (Image.OPEN[name][1] for name in formats if name in Image.OPEN)
    return len(start) > 8 and any(test is not None and test(start) is True for test in tests)


def _looks_like_image(path: str, read_start: Callable[[], bytes]) -> bool:
    return is_vague(path) and starts_like_image(read_start())


def describe_left_out(skipped: Mapping[str, int], ignored: Mapping[str, int]) -> list[str]:
    """Return in words which files are left out, and by which rule; nothing if none is.

    >>> describe_left_out({".cr2": 2, "": 1}, {"@eaDir/": 3})
    ['not read: 2 .cr2, 1 without an ending', 'ignored: 3 @eaDir/']
    """
    endings = {ending or "without an ending": count for ending, count in skipped.items()}
    counts = {"not read": endings, "ignored": ignored}
    return [f"{name}: {_list_counts(numbers)}" for name, numbers in counts.items() if numbers]


def _list_counts(counts: Mapping[str, int]) -> str:
    parts = [f"{count:,} {name}" for name, count in counts.items()]
    rest = sum([*counts.values()][SHOWN:])
    return ", ".join(parts[:SHOWN]) + (f" and {rest:,} of other kinds" if rest else "")


def make_empty_error(source: str, selection: Selection[Any]) -> SourceError:
    """Return the error for a source or folder without images, with what is left out."""
    left_out = describe_left_out(selection.skipped, selection.ignored)
    archives = any(ending in selection.skipped for ending in (".zip", ".tar", ".gz", ".rar", ".7z"))
    return SourceError(
        f"{source} holds no image ({'; '.join(left_out) or 'it is empty'}); "
        f"{', '.join(list_formats())} files count, in one folder a class"
        + ("; unpack the archives in it" if archives else "")
    )
