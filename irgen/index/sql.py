"""Check filters written as SQL: they compare columns with values, and can do nothing else.

Polars' SQL can also read files and addresses, ``FROM read_csv('/etc/passwd')``, and make texts of
any length, ``RPAD(id, 1000000000)``. A filter may come from a stranger (``irgen serve``). So it is
split into tokens here, and only what is known to be harmless passes.
"""

import re
from collections.abc import Sequence

import polars as pl
from polars.exceptions import PanicException, PolarsError

from irgen.errors import IndexingError

MOST_OPERATORS = 1000  # reading many takes long, and thousands overflow the stack
QUERY_WORDS = {"SELECT", "FROM", "TABLE", "EXISTS"}
LANGUAGE = {  # words that a parenthesis may follow, besides functions
    *("AND", "OR", "NOT", "XOR", "IN", "ANY", "ALL", "LIKE", "ILIKE", "BETWEEN", "IS"),
    *("OVER", "CASE", "WHEN", "THEN", "ELSE", "DECIMAL", "NUMERIC", "VARCHAR", "CHAR"),
}
FUNCTIONS = {  # none makes a longer text of what it is given
    *("LOWER", "UPPER", "INITCAP", "LENGTH", "CHAR_LENGTH", "STARTS_WITH", "ENDS_WITH", "STRPOS"),
    *("LEFT", "RIGHT", "SUBSTR", "SUBSTRING", "TRIM", "LTRIM", "RTRIM", "REVERSE", "SPLIT_PART"),
    *("REGEXP_LIKE", "COALESCE", "NULLIF", "IFNULL", "IF", "GREATEST", "LEAST"),
    *("ABS", "CEIL", "CEILING", "FLOOR", "ROUND", "SIGN", "SQRT", "EXP", "LN", "LOG", "LOG2"),
    *("LOG10", "POW", "POWER", "MOD", "DIV", "CAST", "TRY_CAST", "DATE", "DATE_PART", "EXTRACT"),
    *("TIME", "TIMESTAMP", "STRPTIME", "ARRAY_CONTAINS", "ARRAY_LENGTH"),
    *("AVG", "MIN", "MAX", "SUM", "COUNT"),
}
BEFORE_FROM = {"EXTRACT", "SUBSTRING"}  # as in EXTRACT(year FROM day), two tokens before it
OPERATORS = {"AND", "OR", "NOT", "IS", "IN", "LIKE", "ILIKE", "BETWEEN"}
TOKEN = re.compile(
    r"""(?P<skipped> \s+ | --[^\n\r]*(?![^\n]))
    | (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*")
    | (?P<word> \w+ (?!['"]))
    | (?P<mark> [+*/%<>=!~^.,:()\[\]] | -(?!-))""",
    re.VERBOSE,
)


def check_sql(text: str) -> str:
    """Return a filter written as SQL, such as ``label = 'shirt' AND width > 200``. Raise
    IndexingError if it is none, or does more than to compare."""
    tokens = _split(text)
    if sum(map(_is_operator, tokens)) > MOST_OPERATORS:
        raise IndexingError(
            f"the filter has more than {MOST_OPERATORS:,} operators: write a list, as in "
            "id IN ('a', 'b'), or filter in several steps"
        )
    for number in range(len(tokens)):
        _check_token(tokens, number)
    try:
        pl.sql_expr(text)
    except (PolarsError, PanicException) as error:
        raise _unreadable(text, error) from None
    return text


def clip(text: object, most: int = 200) -> str:
    """Return a text as one line of at most so many characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[:most]}…"


def _split(text: str) -> list[str]:
    """Return the tokens of a filter, without spaces and comments; words in capitals."""
    tokens, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise _unreadable(text, f"unexpected {text[position]!r}; put it in quotes")
        if match["skipped"] is None:
            tokens.append(match["quoted"] or match[0].upper())
        position = match.end()
    return tokens


def _is_operator(token: str) -> bool:
    return token in OPERATORS or not (token[0] in "'\"(),._" or token[0].isalnum())


def _check_token(tokens: Sequence[str], number: int) -> None:
    """Raise IndexingError for a query inside the filter, and for a call of what is no known
    function."""
    token, before = tokens[number], ["", "", "", *tokens[:number]][-3:]
    if token in QUERY_WORDS and not (
        token == "FROM" and (before[2] == "DISTINCT" or before[0] in BEFORE_FROM)
    ):
        raise IndexingError(f"a filter cannot hold a {token}: compare columns with values")
    if token != "(" or not (before[2][:1] in ("'", '"', "_") or before[2][:1].isalnum()):
        return
    if before[1] == "." or before[2] not in LANGUAGE | FUNCTIONS:
        allowed = ", ".join(sorted(FUNCTIONS))
        raise IndexingError(f"a filter cannot call {clip(before[2], 40)}(): it may call {allowed}")


def _unreadable(text: str, reason: object) -> IndexingError:
    return IndexingError(f"the filter {clip(text)!r} cannot be read: {clip(reason)}")
