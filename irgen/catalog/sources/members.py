"""Members of an archive, and the encoding of their names."""

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import chardet

from irgen.errors import SourceError

AUTO = "auto"
ENCODINGS = (  # of the systems whose packers write names in their own encoding
    *("gb18030", "big5", "cp932", "cp949", "cp437", "cp850"),
    *("cp852", "cp866", "cp1250", "cp1251", "cp1252"),
)
FALLBACK = "cp437"  # of zip itself: every byte is a character


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member of an archive. `problem`: why it cannot be read; `link`: path of the member that
    it stands for; `read`: returns its first bytes, or all of them (-1). Call it before the next
    member is drawn."""

    name: str
    size: int
    is_folder: bool
    read: Callable[[int], bytes]
    problem: str | None = None
    link: str | None = None


Members = Iterator[Member]


def choose_encoding(names: Iterable[bytes], setting: str = AUTO) -> str:
    """Return the encoding of names: UTF-8 if all of them are, else the one that is set or, with
    `auto`, the likeliest. Raises SourceError if it is unknown or does not fit.

    >>> choose_encoding(["衬衫".encode("gbk"), "裤子".encode("gbk")]).lower()
    'gb18030'
    """
    parts = {part for name in names if not name.isascii() for part in name.split(b"/")}
    text = b"\n".join(sorted(part for part in parts if not part.isascii()))
    if _fits(text, "utf-8"):
        return "utf-8"
    if setting == AUTO:
        guess = chardet.detect(text, include_encodings=ENCODINGS)["encoding"] or FALLBACK
        return guess if _fits(text, guess) else FALLBACK
    if not _fits(text, setting):
        raise SourceError(
            f"download.name_encoding: the names in the archive are not in {setting!r}; give the "
            f"encoding of the system that packed it ({', '.join(ENCODINGS)} …), or auto"
        )
    return setting


def _fits(text: bytes, encoding: str) -> bool:
    try:
        codecs.decode(text, encoding)
    except (UnicodeDecodeError, LookupError):
        return False
    return True
