"""A list is read whatever program on whatever machine has written it."""

import polars as pl
import pytest

from irgen.catalog.sources.list_text import decode_list
from irgen.errors import SourceError

TEXT = "path,label,preis\ni/0.jpg,café,1\ni/1.jpg,x,2\n"
ROWS = [("i/0.jpg", "café", 1), ("i/1.jpg", "x", 2)]


def rows(content: bytes) -> list[tuple]:
    text = decode_list(content, "list.csv")
    return pl.read_csv(text.content, separator=text.separator).rows()


@pytest.mark.parametrize(
    "encoding",
    [
        *("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"),
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_separators_and_line_ends_do_not_matter(encoding, separator, end) -> None:
    text = TEXT.replace(",", separator).replace("\n", end)
    assert rows(text.encode(encoding)) == ROWS


@pytest.mark.parametrize("mark", [b"\xfe\xff", b"\xff\xfe"])
def test_a_mark_tells_the_order_of_bytes(mark: bytes) -> None:
    encoding = "utf-16-be" if mark == b"\xfe\xff" else "utf-16-le"
    assert rows(mark + TEXT.encode(encoding)) == ROWS


def test_a_guessed_encoding_is_told() -> None:
    assert decode_list(TEXT.encode(), "list.csv").notes == ()
    (note,) = decode_list(TEXT.encode("latin-1"), "list.csv").notes
    assert "list.csv is not UTF-8" in note


def test_names_may_hold_line_separators_quotes_and_line_ends() -> None:
    odd = ("\u2028", "\u2029", "\x85", "\x0b", "\x1c", '"', "\n", ",")
    names = [f"a{character}b.jpg" for character in odd]
    quoted = ['"{}"'.format(name.replace('"', '""')) for name in names]
    content = "path,label\n" + "".join(f"{name},x\n" for name in quoted)
    assert rows(content.encode()) == [(name, "x") for name in names]


def test_excel_s_own_first_line_is_no_header() -> None:
    assert rows(b"sep=;\r\n" + TEXT.replace(",", ";").encode()) == ROWS


@pytest.mark.parametrize(
    "header",
    ["Path,Label", " path , label ", '"path","label"', "\ufeffPATH,LABEL", "path,\tlabel"],
)
def test_our_columns_are_known_with_blanks_in_any_case(header: str) -> None:
    text = decode_list(f"{header}\na.jpg,x\n".encode(), "list.csv").content.decode()
    assert text.splitlines()[0].replace(";", ",") == "path,label"


def test_a_metadata_column_keeps_its_name() -> None:
    content = b'path,label,Role , "Price, net",PATH\n'
    header = decode_list(content, "list.csv").content.decode()
    assert header.startswith("path,label,role,")
    assert header.rstrip().endswith(",PATH")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"PK\3\4....", "Excel workbook"), (b"\xff\xfea\0b", "not whole as utf-16")],
)
def test_what_is_no_text_is_a_clear_error(content: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        decode_list(content, "list.csv")
