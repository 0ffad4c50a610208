"""Render the pages from their templates; what is wrong is said on the page."""

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from irgen.serve.api import routes
from irgen.serve.api.problems import describe_error
from irgen.serve.pages import codes
from irgen.serve.requests import get_service, may_write


def format_address(values: Mapping[str, Any]) -> str:
    """Return the query part of an address; empty values are left out."""
    return "?" + urlencode({name: value for name, value in values.items() if value != ""})


def format_date(milliseconds: float) -> str:
    """Return a time, given in milliseconds since 1970, as people here read it."""
    return f"{datetime.fromtimestamp(milliseconds / 1000):%d %B %Y, %H:%M}"


def format_sentence(text: str) -> str:
    """Return a message with a capital, unless it begins with the name of a field, and a full stop.

    >>> format_sentence("there is no page"), format_sentence("k: 0 is too few")
    ('There is no page.', 'k: 0 is too few.')
    """
    is_field = text.partition(" ")[0].endswith(":")
    start = text[:1] if is_field else text[:1].upper()
    return start + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


NOTES = {  # of what was just done, by the word in the address
    "added": "The image is in the catalogue now.",
    "replaced": "The image is in the catalogue now, in place of an earlier one of its id.",
    "removed": "The image is removed from the catalogue.",
}
FOLDER = Path(str(resources.files("irgen.serve.pages")))
templates = Jinja2Templates(FOLDER / "templates")
templates.env.filters |= {
    "thumbnail": routes.thumbnail_path,
    "percent": lambda share: f"{share:.0%}",
    "number": "{:,}".format,
    "count": lambda number, noun: f"{number:,} {noun}{'' if number == 1 else 's'}",
    "sentence": format_sentence,
    "prefix": codes.format_prefix,
    "chance": lambda share: f"{share:.0%}" if share >= 0.01 else "below 1%",
    "date": format_date,
    "address": format_address,
    "start": lambda values: "/" + format_address(values),
}


async def render(
    request: Request, template: str, content: Coroutine[Any, Any, dict[str, Any]], **values: Any
) -> HTMLResponse:
    """Return a page made from a template, ``values`` and ``content``. If this cannot be had, the
    page says why."""
    status = 200
    try:
        values |= await content
    except Exception as error:
        status, values["problem"] = describe_error(error)
    return await asyncio.to_thread(fill, request, template, status, values)


def fill(request: Request, template: str, status: int, values: dict[str, Any]) -> HTMLResponse:
    """Return a page made from a template and its ``values``."""
    served = get_service(request).champion.served
    values |= {
        "served": served,
        "path": request.url.path,
        "may_write": may_write(request),
        "note": NOTES.get(request.query_params.get("done", "")),
    }
    return templates.TemplateResponse(request, template, values, status_code=status)


def show_problem(request: Request, status: int, title: str, detail: str) -> HTMLResponse:
    """Return the page of a request that failed."""
    text = "there is no page at this address" if (status, detail) == (404, title) else detail
    return fill(request, "problem.html", status, {"title": title.capitalize(), "problem": text})
