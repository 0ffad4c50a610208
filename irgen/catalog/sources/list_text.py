"""Decode the text of a list: whatever encoding, separator and line ends it was exported with."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import polars as pl

from irgen.errors import SourceError

NAMES = ("path", "label", "role", "id")  # columns of ours
NEEDED = frozenset(("path", "label"))
SEPARATORS = (",", ";", "\t", "|")
MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
WORKBOOK = b"PK\3\4"  # an Excel file is a zip archive


class ListText(NamedTuple):
    """A list as UTF-8 with a clean header. `notes`: what the user should know of the decoding."""

    content: bytes
    separator: str
    notes: tuple[str, ...]


def decode_list(content: bytes, source: str) -> ListText:
    """Return the text of a list. Raises SourceError if it is none.

    The encoding is told by a byte-order mark, by zero bytes (UTF-16), and is else UTF-8 or, if that
    is not valid, Windows-1252. The separator is the one of SEPARATORS that gives a header with
    `path` and `label`.

    >>> decode_list("Path; label\\r\\né.jpg;cat\\r\\n".encode("cp1252"), "x.csv").content.decode()
    'path;label\\né.jpg;cat\\n'
    """
    if content.startswith(WORKBOOK):
        raise SourceError(f"{source} is an Excel workbook or an archive; save it as CSV UTF-8")
    encoding = _find_encoding(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{source} is not whole as {encoding} ({error.reason}); save it as CSV UTF-8"
        ) from None
    is_guess = encoding in ("cp1252", "latin-1")
    note = f"{source} is not UTF-8 and read as {encoding}; if names are wrong, save it as UTF-8"
    text = text.replace("\r\n", "\n")
    if "\n" not in text:  # line ends of old Macs
        text = text.replace("\r", "\n")
    if text.startswith("sep="):  # Excel's own first line
        text = text.partition("\n")[2]
    separator, text = _clean_header(text)
    return ListText(text.encode(), separator, (note,) if is_guess else ())


def read_texts(text: ListText, source: str) -> pl.DataFrame:
    """Return the columns of a list, all as text; what is empty is null. A column without a name and
    values is left out. Raises SourceError for two columns of one name, and for a row of more values
    than there are columns; PolarsError if the text is no table."""
    names, _ = _read_header(text.content.decode(), text.separator)
    if not names:
        raise SourceError(f"{source} cannot be read as a list: it is empty")
    read = partial(pl.read_csv, text.content, has_header=False, separator=text.separator)
    try:
        table = read(infer_schema=False)
    except pl.exceptions.PolarsError:
        _refuse_long_rows(text, len(names), source)
        table = read(infer_schema=False, truncate_ragged_lines=True)  # more are empty
    columns = list(zip(names, table[1:].iter_columns(), strict=True))
    columns = [(name, values) for name, values in columns if name or values.is_not_null().any()]
    if twice := [name for name, count in Counter(n for n, _ in columns).items() if count > 1]:
        raise SourceError(f"{source} has two columns named {twice[0]!r}; rename one")
    return pl.DataFrame(dict(columns), schema={name: pl.String() for name, _ in columns})


def _refuse_long_rows(text: ListText, columns: int, source: str) -> None:
    reader = csv.reader(io.StringIO(text.content.decode()), delimiter=text.separator)
    with suppress(csv.Error):  # it is no table
        for row in reader:
            if any(row[columns:]):
                raise SourceError(
                    f"{source}: line {reader.line_num} has {len(row)} values, but there are "
                    f"{columns} columns; put values that hold {text.separator!r} in double quotes"
                )


def _find_encoding(content: bytes) -> str:
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return encoding
    if b"\0" in content[:1000]:
        return "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    for encoding in ("utf-8", "cp1252"):
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"  # any bytes are


def _clean_header(text: str) -> tuple[str, str]:
    """Return the separator, and the text with the names of our columns as we write them."""
    headers = [(sep, *_read_header(text, sep)) for sep in SEPARATORS]
    fitting = (header for header in headers if NEEDED.issubset(clean_names(header[1])))
    widest = max(headers, key=lambda header: len(header[1]))
    separator, names, lines = next(fitting, widest)
    header = io.StringIO()
    csv.writer(header, delimiter=separator, lineterminator="\n").writerow(clean_names(names))
    rest = text.split("\n", lines)[lines:]
    return separator, header.getvalue() + "".join(rest)


def _read_header(text: str, separator: str) -> tuple[list[str], int]:
    """Return the names of the columns, and how many lines they take."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    return next(reader, []), reader.line_num


def clean_names(names: Sequence[str]) -> list[str]:
    """Return the names of columns; ours without blanks and in lower case, unless there is such a
    column already.

    >>> clean_names(["Path", " label", "ID", "id", "Preis"])
    ['path', 'label', 'ID', 'id', 'Preis']
    """
    cleaned = list(names)
    for ours in NAMES:
        alike = [i for i, name in enumerate(names) if name.strip("\ufeff \t").lower() == ours]
        if alike and ours not in names:
            cleaned[alike[0]] = ours
    return cleaned
