"""Pass every request through: a request id, limits, headers against misuse, and the access log."""

import json
import logging
import math
import sys
import time
import uuid
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from irgen.errors import redact
from irgen.serve.access.limits import RateLimit, name_client
from irgen.serve.access.slow_clients import Body, BrokenLimitError
from irgen.serve.access.tokens import Token, Tokens
from irgen.serve.api.problems import make_problem, report_fault
from irgen.serve.measurements import Measurements

access_log = logging.getLogger("irgen.access")
OPEN_PATHS = {"/healthz", "/readyz"}
UNCOUNTED = (*OPEN_PATHS, "/static/", "/v1/thumbnail")  # a page of results has forty thumbnails
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Access:
    """ASGI middleware. ``most_bytes``: of a request's body. ``tokens``: who is let in; None:
    everybody who reaches the port. ``rate``: of each client's requests; None: any."""

    def __init__(
        self,
        app: ASGIApp,
        measurements: Measurements,
        most_bytes: int,
        tokens: Tokens | None,
        rate: RateLimit | None,
    ) -> None:
        self.app, self.measurements, self.most_bytes = app, measurements, most_bytes
        self.tokens, self.rate = tokens, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, started, status = uuid.uuid4().hex[:16], time.perf_counter(), 0
        body = Body(receive, self.most_bytes)
        is_head = scope["method"] == "HEAD"  # answered as GET; the server leaves the body out
        scope = dict(scope, method="GET" if is_head else scope["method"])

        async def marked_send(message: Message) -> None:
            nonlocal status
            if body.problem is not None:
                return  # the answer below takes its place
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if (refusal := self._refuse(scope)) is not None:
                await refusal(scope, receive, marked_send)
                return
            with suppress(BrokenLimitError):
                await self.app(scope, body.receive, marked_send)
            if body.problem is not None:
                refusal, body.problem = make_problem(*body.problem), None
                await refusal(scope, receive, marked_send)
        except Exception as error:  # a fault of ours: no handler knows it
            answer = report_fault(request_id, error)
            if not status:  # nothing was sent yet
                await answer(scope, receive, marked_send)
        finally:
            seconds = time.perf_counter() - started
            self._note(scope, request_id, status or 500, seconds)

    def _refuse(self, scope: Scope) -> JSONResponse | None:
        """Return the answer to a request that goes no further. A wrong token counts, too, so that
        nobody can try many."""
        token = self._find_token(scope)
        scope["irgen.client"] = _read_address(scope) if token is None else token.name
        scope["irgen.scope"] = "write" if self.tokens is None else token and token.scope
        if wait := self._count(scope):
            return _ask_to_wait(wait)
        if token is None and self.tokens is not None and scope["path"] not in OPEN_PATHS:
            return _ask_for_token()
        if _is_from_other_site(scope):
            return make_problem(
                403, "a page of another site may not send this: use the service's own"
            )
        return None

    def _find_token(self, scope: Scope) -> Token | None:
        if self.tokens is None:
            return None
        return self.tokens.find(Headers(scope=scope).get("authorization"))

    def _count(self, scope: Scope) -> float:
        """Return the seconds that the client has to wait until it may send this request."""
        if self.rate is None or scope["path"].startswith(UNCOUNTED):
            return 0.0
        return self.rate.count(scope["irgen.client"])

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self.measurements.requests.labels(route, status).inc()
        self.measurements.seconds.labels(route).observe(seconds)
        fields = {
            "request": request_id,
            "client": scope["irgen.client"],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "milliseconds": round(seconds * 1e3, 2),
        }
        access_log.info("request", extra={"fields": fields})


def _read_address(scope: Scope) -> str:
    return name_client((scope.get("client") or ("", 0))[0])


def _is_from_other_site(scope: Scope) -> bool:
    """Tell whether a page that is not the service's made a browser send more than a GET.

    A browser says so in Sec-Fetch-Site; but over plain HTTP to another machine only in Origin.
    """
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if scope["method"] == "GET":
        return False
    if site is not None:
        return site not in ("none", "same-origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def _ask_for_token() -> JSONResponse:
    text = "a token is needed: Authorization: Bearer TOKEN; in a browser, the token as the password"
    answer = make_problem(401, text)
    answer.headers["WWW-Authenticate"] = 'Basic realm="irgen", charset="UTF-8"'
    return answer


def _ask_to_wait(seconds: float) -> JSONResponse:
    answer = make_problem(429, f"too many requests: send the next in {seconds:.1f} s")
    answer.headers["Retry-After"] = str(math.ceil(seconds))
    return answer


class JsonFormatter(logging.Formatter):
    """Log records as one JSON object a line, without secrets: message, and ``extra["fields"]``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(redact(fields), default=str)


def log_as_json(*, requests: bool) -> None:
    """Send the service's log to stderr and, with ``requests``, its access log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    levels = {"irgen.serve": "INFO", "irgen.access": "INFO" if requests else "ERROR"}
    for name, level in (levels | {"uvicorn.error": "WARNING", "python_multipart": "ERROR"}).items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers, logger.propagate = [handler], False
