"""Tell forms of one word by their letters, in any language that puts endings to words."""

from itertools import takewhile

SHORTEST_STEM, LONG_STEM = 3, 5  # letters that forms of a word share


def is_form(word: str, other: str) -> bool:
    """Tell whether two words may be forms of one, such as singular and plural: they differ in the
    last letter, or in the last two of long ones.

    >>> [is_form("apples", word) for word in ("apple", "applet", "ape")]
    [True, True, False]
    >>> is_form("tomatoes", "tomato"), is_form("striped", "stripes"), is_form("size", "150")
    (True, True, False)
    """
    common = count_common(word, other)
    differing = max(len(word), len(other)) - common
    is_long = common >= LONG_STEM
    return (
        word.isalpha() and other.isalpha() and common >= SHORTEST_STEM and differing <= 1 + is_long
    )


def count_common(word: str, other: str) -> int:
    """Return the number of letters with which both words begin.

    >>> count_common("apples", "apple")
    5
    """
    pairs = zip(word, other, strict=False)
    return sum(1 for _ in takewhile(lambda letters: letters[0] == letters[1], pairs))
