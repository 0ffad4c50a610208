"""Read the size of a JPEG XL image, whose decoder tells it only after all pixels are decoded."""

from fractions import Fraction

from irgen.errors import ImageError

CODESTREAM, CONTAINER = b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"
HEADER = 12  # bytes that hold the size at most
WIDTHS = (9, 13, 18, 30)  # bits of a number, by a selector of two bits
RATIOS = ("1", "1", "6/5", "4/3", "3/2", "16/9", "5/4", "2")  # width / height, by number


def is_jxl(content: bytes) -> bool:
    """Tell whether a file is JPEG XL."""
    return content.startswith((CODESTREAM, CONTAINER))


def read_size(content: bytes) -> tuple[int, int]:
    """Return width and height as stored. Raises ImageError if there is no image in the file.

    >>> read_size(bytes.fromhex("ff0a3898"))
    (264, 264)
    """
    start = _find_codestream(content)
    if content[start : start + 2] != CODESTREAM:
        raise ImageError("damaged: no image in a JPEG XL file")
    bits = int.from_bytes(content[start + 2 : start + 2 + HEADER], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def take_side() -> int:
        return 8 * (take(5) + 1) if small else take(WIDTHS[take(2)]) + 1

    height = take_side()
    ratio = take(3)
    return int(height * Fraction(RATIOS[ratio])) if ratio else take_side(), height


def _find_codestream(content: bytes) -> int:
    """Return where the pixels start: at once, or in a box of a container."""
    start = 0
    while content.startswith(CONTAINER) and start + 8 <= len(content):
        size, kind = (
            int.from_bytes(content[start : start + 4], "big"),
            content[start + 4 : start + 8],
        )
        head = 16 if size == 1 else 8  # a long box has its size after its name
        if kind in (b"jxlc", b"jxlp"):
            return start + head + (4 if kind == b"jxlp" else 0)  # a part has a number
        size = int.from_bytes(content[start + 8 : start + 16], "big") if size == 1 else size
        if size < head:
            break
        start += size
    return start
