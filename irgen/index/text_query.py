"""Read queries in words: which of their words are searched for, and by what."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from irgen.errors import IndexingError, UnknownWordsError
from irgen.index.view import View
from irgen.index.words import MOST_WORDS, WordSearch, has_texts
from irgen.models.text import TextEncoder

TextMethod = Literal["text encoder", "full-text search"]
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class TextQuery:
    """Words of a query. ``text``: those that are searched for. ``unknown``: those that no image's
    texts have; they are left out. ``forms``: such words of which images have another form, and that
    form, which is searched for in their place. ``is_full_text``: full-text search answers, not the
    text encoder, since there is none, or since it has not learned all of the words."""

    text: str
    unknown: tuple[str, ...] = ()
    forms: tuple[tuple[str, str], ...] = ()
    is_full_text: bool = False


def read_texts(
    texts: Sequence[str | TextQuery],
    encoder: TextEncoder | None,
    word_search: WordSearch,
    view: View,
) -> list[TextQuery]:
    """Read queries over the images of ``view``, but for those that were read before. Raise
    UnknownWordsError if one of them has only words that no image's texts have, IndexingError if one
    has no words, or if the images have no texts."""
    if isinstance(texts, str):
        raise IndexingError(f"texts are a list of strings, not the one string {texts!r}")
    if texts and encoder is None and not has_texts(view):
        raise IndexingError(
            "this index cannot be searched by words, since its images have no texts: name a file "
            "of them in params.yaml (download: captions), and build it again"
        )
    return [
        text if isinstance(text, TextQuery) else _read(text, encoder, word_search, view)
        for text in texts
    ]


def _read(text: str, encoder: TextEncoder | None, word_search: WordSearch, view: View) -> TextQuery:
    words = list(dict.fromkeys(WORD.findall(unicodedata.normalize("NFC", text))))
    if not words:
        raise IndexingError(f"text: {text!r} has no letter or digit: write words to look for")
    if len(words) > MOST_WORDS:
        raise IndexingError(f"text: {len(words):,} words are too many; allowed: {MOST_WORDS}")
    missing = word_search.list_missing(view, _list_new(words, encoder))
    forms = word_search.find_forms(view, missing)
    unknown = [word for word in missing if word not in forms]
    if len(unknown) == len(words):
        raise UnknownWordsError(unknown)
    searched = [forms.get(word, word) for word in words if word not in unknown]
    is_full_text = bool(_list_new(searched, encoder))
    return TextQuery(" ".join(searched), tuple(unknown), tuple(forms.items()), is_full_text)


def _list_new(words: Sequence[str], encoder: TextEncoder | None) -> list[str]:
    """Return the words that the text encoder has not learned: all of them if there is none."""
    return [word for word in words if encoder is None or encoder.unknown_words(word)]
