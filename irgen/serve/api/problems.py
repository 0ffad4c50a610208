"""Errors as problem documents (RFC 9457): what is wrong, and the remedy."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from irgen.errors import (
    IdTakenError,
    IdUnknownError,
    IrgenError,
    LockedError,
    UnknownWordsError,
    WriteFailedError,
    redact,
)
from irgen.serve.errors import (
    ForbiddenError,
    NotFoundError,
    NotReadyError,
    OutdatedError,
    OverloadedError,
)

log = logging.getLogger("irgen.serve")
MEDIA_TYPE = "application/problem+json"


REASONS = {
    400: "The request does not fit the index: an image, id, text or filter.",
    401: "A token is needed.",
    403: "The token may only read, or the service only reads.",
    404: "There is no such image, or its file is not here.",
    408: "The request took too long to arrive.",
    409: "An id is in the index already.",
    413: "The request is too large.",
    422: "A field is missing, unknown or out of its range.",
    429: "Too many requests, of this client or of all; Retry-After says when to come again.",
    503: "No index can answer yet, or somebody else changes it; nothing was changed.",
    504: "No answer in time.",
    507: "The disk is full; nothing was changed.",
}
# What the web server says itself of an address longer than 64 KB, or of what is no HTTP.
NO_HTTP = {"text/plain": {"schema": {"type": "string"}}}
SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and the remedy."},
        "errors": {"type": "array", "items": {"type": "object"}},
        "unknown_words": {
            "type": "array",
            "items": {"type": "string"},
            "description": "All words of a query, where no image's texts have any of them.",
        },
    },
}


EXPECTED = (
    IrgenError,
    OverloadedError,
    NotReadyError,
    ForbiddenError,
    NotFoundError,
    OutdatedError,
    TimeoutError,
)


def describe_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the part of the API's description that says which problems a route answers with."""
    content = {MEDIA_TYPE: {"schema": SCHEMA}}
    described: dict[int | str, dict[str, Any]] = {
        status: {"description": REASONS[status], "content": content} for status in statuses
    }
    if 400 in described:
        described[400]["content"] = content | NO_HTTP
    return described


class Problem(JSONResponse):
    """A problem document; a browser that asks for a page gets one instead."""

    media_type = MEDIA_TYPE

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content, content["status"])
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer in the form that the client asks for."""
        if not _wants_page(scope):
            await super().__call__(scope, receive, send)
            return
        fields = (self._content[name] for name in ("status", "title", "detail"))
        page = scope["app"].state.show_problem(Request(scope), *fields)
        missing = {name: value for name, value in self.headers.items() if name not in page.headers}
        page.headers.update(missing)  # such as Retry-After
        await page(scope, receive, send)


def _wants_page(scope: Scope) -> bool:
    """Tell whether a browser asks for a page; the API answers all alike."""
    is_page = not scope["path"].startswith("/v1/") and hasattr(scope["app"].state, "show_problem")
    return is_page and "text/html" in Headers(scope=scope).get("accept", "")


def make_problem(status: int, detail: str, **more: Any) -> Problem:
    """Return a problem document; ``more``: fields beside type, title, status and detail."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": redact(detail),
        **more,
    }
    return Problem(content)


def describe_error(error: Exception) -> tuple[int, str]:
    """Return the status and the text for people of an error that a request may end with; raise any
    other error again."""
    match error:
        case NotFoundError() | IdUnknownError():
            return 404, str(error)
        case ForbiddenError():
            return 403, str(error)
        case IdTakenError():
            return 409, str(error)
        case LockedError():
            return 503, f"{error.holder} changes the index; nothing was changed here: try again"
        case OutdatedError():
            return 503, "the index is being replaced; nothing was changed: try again"
        case WriteFailedError():
            return 507, str(error)
        case IrgenError():
            return 400, str(error)
        case ValidationError():
            return 422, "; ".join(f"{field}: {reason}" for field, reason in _list_fields(error))
        case OverloadedError():
            return 429, str(error)
        case NotReadyError():
            return 503, f"no index can answer yet: {error}"
        case TimeoutError():
            return 504, "no answer in time: try again, ask for fewer images, or fewer beams"
    raise error


def _list_fields(error: ValidationError | RequestValidationError) -> list[tuple[str, str]]:
    """Return the fields of a request that are wrong, and why."""
    return [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]


def _answer(request: Request, error: Exception) -> JSONResponse:
    status, detail = describe_error(error)
    if isinstance(error, UnknownWordsError):
        return make_problem(status, detail, unknown_words=error.words)
    answer = make_problem(status, detail)
    if isinstance(error, OverloadedError):
        answer.headers["Retry-After"] = f"{error.retry_after:.0f}"
    elif isinstance(error, NotReadyError):
        answer.headers["Retry-After"] = "5"
    elif isinstance(error, LockedError | OutdatedError):
        answer.headers["Retry-After"] = "1"
    return answer


def _refuse_fields(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [{"field": field, "reason": reason} for field, reason in _list_fields(error)]
    text = "; ".join(f"{item['field']}: {item['reason']}" for item in errors[:3])
    return make_problem(422, f"{text}. /v1/openapi.json describes every field", errors=errors)


def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = make_problem(error.status_code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


def report_fault(request_id: str, error: Exception) -> JSONResponse:
    """Log an error that nobody can mend but us, and return the answer to the client."""
    log.error("a request failed", exc_info=error, extra={"fields": {"request": request_id}})
    return make_problem(500, "a fault of the service: its log says more under this request's id")


def add_handlers(app: FastAPI) -> None:
    """Turn the errors that requests end with into problem documents."""
    for kind in EXPECTED:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(RequestValidationError, _refuse_fields)
    app.add_exception_handler(HTTPException, _answer_http_error)
