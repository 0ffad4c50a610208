"""Defend the service against clients that send a byte now and then, and so hold what others need.

Each connection takes a file descriptor. uvicorn waits for the head of a request for ever, so
``HastyProtocol`` closes the connection if it does not come. ``Body`` bounds time and size of what
follows.
"""

import asyncio
import resource
from typing import Any

from starlette.types import Message, Receive
from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 10.0  # from the first byte of a request, or from the connection, to its last header
BODY_SECONDS = 30.0  # from the last header to the end of the request
MOST_CONNECTIONS = 65_536


class HastyProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """An HTTP connection that is closed if the head of a request takes longer than HEAD_SECONDS."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Expect the head of the first request."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Expect the head of the next request, if this is its beginning."""
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._close_without_head, self.cycle)

    def _close_without_head(self, before: object) -> None:
        """Close the connection if no request has begun since ``before``, the one at that time."""
        self._timer = None
        if self.cycle is before:
            self.transport.abort()


class BrokenLimitError(Exception):
    """A request's body is too large or too slow."""


class Body:
    """Body of a request, at most ``most_bytes`` within BODY_SECONDS. ``problem``: status and text
    of the answer if it breaks a limit."""

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self._receive, self._most, self._bytes = receive, most_bytes, 0
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._ended = False
        self.problem: tuple[int, str] | None = None

    async def receive(self) -> Message:
        """Return the next message. Raise BrokenLimitError: the parser of the body turns it into an
        answer of its own, which ``problem`` replaces."""
        if self._ended:  # what is waited for now is that the client leaves
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self.problem = (408, f"the request took longer than {BODY_SECONDS:g} s to arrive")
            raise BrokenLimitError from None
        self._bytes += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._bytes > self._most:
            text = f"more than {self._most:,} bytes: send smaller images, or fewer at once"
            self.problem = (413, text)
            raise BrokenLimitError
        return message


def allow_connections() -> None:
    """Let this process and its children open as many files as the system allows, so that idle
    connections keep nobody out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > MOST_CONNECTIONS:
        wanted = max(soft, MOST_CONNECTIONS)
    else:
        wanted = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
