"""Tell browsers that what they have is what they would get: ETags made of the files' SHA-256."""

import re

from fastapi import Request, Response

KEPT = {"Cache-Control": "private, max-age=86400"}


def make_headers(sha256: object, form: str) -> dict[str, str]:
    """Return headers for an answer made in this form from the file of this SHA-256. What is no
    SHA-256 gives no ETag: nothing but hex digits may get into a header.

    >>> make_headers("a" * 64, "small")["ETag"][-8:], "ETag" in make_headers("a: b", "small")
    ('a-small"', False)
    """
    is_hash = isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
    return KEPT | ({"ETag": f'"{sha256}-{form}"'} if is_hash else {})


def find_unchanged(request: Request, headers: dict[str, str]) -> Response | None:
    """Return the answer 304 if the client has what ``headers`` are of, else None."""
    tags = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    is_unchanged = headers.get("ETag") in [tag.removeprefix("W/") for tag in tags]
    return Response(status_code=304, headers=headers) if is_unchanged else None
