"""Find images by words: full-text search over their ids and text columns, in SQLite.

The full-text table is in memory: for a million short texts it takes about ten seconds to build and
60 MB. It is built when words are first asked for, and then follows the index.
"""

import sqlite3
from collections.abc import Sequence
from threading import Lock

import numpy as np
import polars as pl

from irgen.errors import IndexingError
from irgen.index.metadata import ID
from irgen.index.view import View
from irgen.index.word_forms import SHORTEST_STEM, count_common, is_form

LEFT_OUT, PATH = "sha256", "path"
TEXT_TYPES = (pl.String(), pl.List(pl.String))
MOST_WORDS = 50  # SQLite reads no query of many more
SPARE = 10_000  # texts of images that are gone, kept until there are as many as of the others
TOKENIZER = "tokenize='unicode61 remove_diacritics 2'"
TABLES = f"""
CREATE VIRTUAL TABLE texts USING fts5(text, content='', {TOKENIZER});
CREATE VIRTUAL TABLE text_words USING fts5vocab(texts, row);
CREATE VIRTUAL TABLE query USING fts5(text, {TOKENIZER});
CREATE VIRTUAL TABLE query_words USING fts5vocab(query, instance);
"""
FORMS = "SELECT term FROM text_words WHERE term >= ? AND term < ?"
LAST_CHARACTER = "\U0010ffff"
MATCHES = "SELECT rowid FROM texts WHERE texts MATCH ?"
SCORED = "SELECT rowid, -rank FROM texts WHERE texts MATCH ? ORDER BY rank LIMIT ?"  # BM25


class WordSearch:
    """Search by words in the views of one index. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._table: TextTable | None = None

    def find(self, view: View, words: str) -> np.ndarray:
        """Return the rows (n,) int64 of the images of ``view`` that have all ``words`` in their id
        or text columns, in no order.

        Capitals and accents do not count, nor does the order of words; the last one may be the
        beginning of a longer one. Raise IndexingError if there is no word, or more than MOST_WORDS.
        """
        with self._lock:
            return self._follow(view).find(words, MATCHES)

    def rank(self, view: View, words: str) -> np.ndarray:
        """Return the rows that ``find`` returns, best match first (BM25)."""
        with self._lock:
            return self._follow(view).find(words, f"{MATCHES} ORDER BY rank")

    def rank_any(
        self, view: View, words: str, most: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows (n,) int64 of the images that have any of ``words``, best match first,
        and their BM25 (n,) float64: all of them, or about ``most``. Raise IndexingError as ``find``
        does."""
        with self._lock:
            return self._follow(view).rank_any(words, most)

    def list_missing(self, view: View, words: Sequence[str]) -> list[str]:
        """Return those of ``words`` that no image of ``view`` has in its id or text columns."""
        if not words:
            return []  # the table need not be built
        with self._lock:
            table = self._follow(view)
            return [word for word in words if not table.has(word)]

    def find_forms(self, view: View, words: Sequence[str]) -> dict[str, str]:
        """Return, for those of ``words`` that no image of ``view`` has, but another form of it such
        as the singular, that form."""
        if not words:
            return {}
        with self._lock:
            table = self._follow(view)
            forms = {word: table.find_form(word) for word in words}
        return {word: form for word, form in forms.items() if form is not None}

    def _follow(self, view: View) -> "TextTable":
        """Return the full-text table of ``view``."""
        if self._table is None or len(self._table) > 2 * len(view) + SPARE:
            self._table = TextTable()
        self._table.follow(view)
        return self._table


class TextTable:
    """Full-text table that follows the views of one index.

    Texts are only ever added: ``_hashes`` (n,) has that of each, and ``_rows`` (n,) int64 the row
    of the current view that has it, −1 for none. So a view of a compacted index, whose rows have
    other numbers, needs no new table.
    """

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            self._connection.executescript(TABLES)
        except sqlite3.OperationalError as error:
            raise IndexingError(
                f"the SQLite of this Python has no full-text search ({error}): search without words"
            ) from None
        self._hashes = pl.DataFrame(schema={"hash": pl.UInt64})
        self._rows = np.empty(0, np.int64)
        self._view: View | None = None

    def __len__(self) -> int:
        """Texts, those of no image any more included."""
        return len(self._hashes)

    def find(self, words: str, query: str) -> np.ndarray:
        """Return the rows (n,) that have all ``words``, in the order of ``query``."""
        expression = " ".join(map(_quote, self._split(words))) + "*"
        numbers = [number for (number,) in self._connection.execute(query, (expression,))]
        rows = self._rows[np.array(numbers, np.int64)]
        return rows[rows >= 0]

    def rank_any(self, words: str, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows (n,) that have any of ``words``, best first, and their BM25 (n,): all, or
        those of the best ``most`` texts that an image still has."""
        expression = " OR ".join(map(_quote, self._split(words)))
        limit = -1 if most is None else most  # SQLite's way of having no limit
        matches = self._connection.execute(SCORED, (expression, limit)).fetchall()
        rows = self._rows[np.array([number for number, _ in matches], np.int64)]
        scores = np.array([score for _, score in matches], np.float64)
        return rows[rows >= 0], scores[rows >= 0]

    def has(self, word: str) -> bool:
        """Tell whether an image has this word, which may be written of several."""
        expression = " + ".join(map(_quote, self._split(word)))
        matches = self._connection.execute(MATCHES, (expression,))
        return any(self._rows[number] >= 0 for (number,) in matches)

    def find_form(self, word: str) -> str | None:
        """Return the word of an image that is most like another form of ``word``."""
        (first, *more) = self._split(word)
        if more:
            return None
        start = first[: max(len(first) - 2, SHORTEST_STEM)]
        terms = self._connection.execute(FORMS, (start, start + LAST_CHARACTER)).fetchall()
        forms = [term for (term,) in terms if is_form(first, term) and self.has(term)]
        return min(forms, key=lambda form: (-count_common(first, form), len(form)), default=None)

    def _split(self, words: str) -> list[str]:
        """Return the words of a text as the full-text table has them, so that none of the user's
        characters means anything in a query."""
        self._connection.execute("DELETE FROM query")
        text = words.encode(errors="replace").decode()  # half of a surrogate pair is no text
        self._connection.execute("INSERT INTO query VALUES (?)", (text,))
        rows = self._connection.execute("SELECT term FROM query_words ORDER BY offset")
        terms = [term for (term,) in rows]
        if not terms:
            raise IndexingError(f"words: {words!r} has no letter or digit: write words to look for")
        if len(terms) > MOST_WORDS:
            raise IndexingError(f"words: {len(terms):,} are too many; allowed: {MOST_WORDS}")
        return terms

    def follow(self, view: View) -> None:
        """Add the texts of ``view`` that are new, and note in which rows it has the others."""
        if view is self._view:
            return
        rows = view.snapshot.alive_rows().numpy()
        texts = _join_texts(view)[rows]
        current = pl.DataFrame({"hash": texts.hash(), "row": rows, "text": texts})
        new = current.join(self._hashes, on="hash", how="anti", maintain_order="left")
        with self._connection:
            self._connection.executemany(
                "INSERT INTO texts (rowid, text) VALUES (?, ?)", enumerate(new["text"], len(self))
            )
        self._hashes = pl.concat([self._hashes, new.select("hash")], rechunk=True)
        located = self._hashes.join(current, on="hash", how="left", maintain_order="left")
        self._rows = located["row"].fill_null(-1).to_numpy()
        self._view = view


def has_texts(view: View) -> bool:
    """Tell whether a row of ``view`` has a text beside its id and path."""
    kinds = {name: kind for name, kind in view.schema.items() if name not in (LEFT_OUT, PATH)}
    texts = [view.table[name] for name, kind in kinds.items() if kind in TEXT_TYPES]
    return any(values.null_count() < len(values) for values in texts)


def _quote(term: str) -> str:
    return f'"{term}"'


def _join_texts(view: View) -> pl.Series:
    """Return the id and texts of every row; a path only where it is not the id."""
    kinds = {name: kind for name, kind in view.schema.items() if name != LEFT_OUT}
    texts = [pl.col(name) for name, kind in kinds.items() if kind == pl.String]
    lists = [
        pl.col(name).list.join(" ", ignore_nulls=True)
        for name, kind in kinds.items()
        if kind == pl.List(pl.String)
    ]
    own = [pl.when(text != pl.col(ID)).then(text) for text in [*texts, *lists]]
    joined = pl.concat_str([pl.col(ID), *own], separator="\n", ignore_nulls=True)
    return view.table.select(joined.alias("text"))["text"]
