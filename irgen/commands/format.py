"""Format numbers for people."""


def format_count(count: int, noun: str) -> str:
    """Format a number of things.

    >>> format_count(1, "image"), format_count(1438, "image")
    ('1 image', '1,438 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_percent(share: float | None) -> str:
    """Format a probability in percent; only 0 and 1 become 0% and 100%, and None a dash.

    >>> [format_percent(share) for share in (0.5, 0.999, 1e-9, 1.0, None)]
    ['50%', '>99%', '<1%', '100%', '–']
    """
    if share is None:
        return "–"
    if 0.995 <= share < 1:
        return ">99%"
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def format_bytes(count: int) -> str:
    """Format a number of bytes.

    >>> [format_bytes(count) for count in (0, 12_169, 4_200_000, 7_654_321_000)]
    ['0 B', '12 kB', '4.2 MB', '7.7 GB']
    """
    for unit, scale, digits in (("GB", 1e9, 1), ("MB", 1e6, 1), ("kB", 1e3, 0)):
        if count >= scale:
            return f"{count / scale:,.{digits}f} {unit}"
    return f"{count} B"
