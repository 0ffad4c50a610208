"""Numbers, names and tables as a person reads them on a terminal."""

import unicodedata
from collections.abc import Sequence


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> str:
    """Rows below their columns' names, a rule between; columns named in ``right`` end alike.

    >>> print(aligned(["id", "score"], [["a cat", "0.5"], ["b", "−1"]], right=["score"]))
    id     score
    ─────  ─────
    a cat    0.5
    b         −1
    """
    lines = [list(columns), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(width, cells)) for cells in zip(*lines, strict=True)]
    lines.insert(1, ["─" * wide for wide in widths])
    gaps = [[" " * (w - width(c)) for c, w in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(
        "  ".join(
            gap + cell if name in right else cell + gap
            for name, cell, gap in zip(columns, line, gap_of_line, strict=True)
        ).rstrip()
        for line, gap_of_line in zip(lines, gaps, strict=True)
    )


def plain(text: str) -> str:
    r"""``text`` with escapes for what would break a line or cannot be printed.

    >>> plain("a cat\n")
    'a cat\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def width(text: str) -> int:
    """The cells that ``text`` takes on a terminal.

    >>> width("cat"), width("猫"), width("e\u0301")
    (3, 2, 1)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "image"), counted(1438, "image")
    ('1 image', '1,438 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(share: float | None) -> str:
    """A probability in percent, never 0 or 100 unless it is; a dash if it is not known.

    >>> percent(0.5), percent(0.999), percent(1e-9), percent(1.0), percent(None)
    ('50%', '>99%', '<1%', '100%', '–')
    """
    if share is None:
        return "–"
    if 0.995 <= share < 1:
        return ">99%"
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def size(count: int) -> str:
    """A number of bytes.

    >>> size(0), size(32), size(12_169), size(4_200_000), size(7_654_321_000)
    ('0 B', '32 B', '12 kB', '4.2 MB', '7.7 GB')
    """
    for unit, scale, digits in (("GB", 1e9, 1), ("MB", 1e6, 1), ("kB", 1e3, 0)):
        if count >= scale:
            return f"{count / scale:,.{digits}f} {unit}"
    return f"{count} B"
