"""Fetch pictures at addresses that clients name: from the public internet alone, within bounds.

A client could otherwise make the service ask machines that only the service can reach. So each
address, also one that a server redirects to, is checked as text here and as an IP address in
``addresses``. Nothing that identifies somebody is sent, and no proxy is used.
"""

import asyncio
from collections.abc import Callable, Sequence

import httpcore
import httpx

from irgen.errors import ImageError, ServiceError, redact
from irgen.serve.access.addresses import CheckedNetwork, is_public

SECONDS, CONNECT_SECONDS = 10.0, 3.0  # for all pictures of a request; to connect
REDIRECTS, CONNECTIONS = 3, 16
PORTS = {"http": 80, "https": 443}
HEADERS = (("User-Agent", "irgen"), ("Accept", "image/*"), ("Accept-Encoding", "identity"))
TIMES = {"connect": CONNECT_SECONDS, "read": SECONDS, "write": SECONDS, "pool": SECONDS}


class Fetcher:
    """Pictures by address. ``most_bytes``: of those of one request together. ``hosts``: the only
    ones that are asked, as HOST, or HOST:PORT for a port other than 80 and 443; none: all.
    ``is_allowed``: tells which IP addresses may be connected to."""

    def __init__(
        self,
        most_bytes: int,
        hosts: Sequence[str] = (),
        is_allowed: Callable[[str], bool] = is_public,
    ) -> None:
        self._most_bytes = most_bytes
        self._hosts = {_read_host(text) for text in hosts}
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=CONNECTIONS,
            max_keepalive_connections=0,
            network_backend=CheckedNetwork(is_allowed),
        )

    async def fetch_all(self, urls: Sequence[str]) -> list[bytes]:
        """Return the files at these addresses. Raise ImageError, which names the address, if one
        cannot be had."""
        budget = _Budget(self._most_bytes)
        tasks = [asyncio.create_task(self._fetch(url, budget)) for url in urls]
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.gather(*tasks)
        except TimeoutError:
            raise ImageError(f"no picture within {SECONDS:g} s: send the file instead") from None
        finally:
            for task in tasks:
                task.cancel()

    async def _fetch(self, text: str, budget: "_Budget") -> bytes:
        try:
            url = httpx.URL(text)
            for _ in range(REDIRECTS + 1):
                self._check(url)
                content, target = await self._ask(url, budget)
                if target is None:
                    return content
                url = url.join(target)
            raise ImageError(f"it redirects more than {REDIRECTS} times")
        except ImageError as error:
            reason = str(error)
        except (httpx.InvalidURL, ValueError):
            reason = "it is no address such as https://host/picture.jpg"
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
            reason = "its server gives no answer"
        raise ImageError(f"{redact(text[:200])}: {reason}") from None

    def _check(self, url: httpx.URL) -> None:
        """Raise ImageError for an address that is not asked."""
        if url.scheme not in PORTS or not url.host:
            raise ImageError("only addresses that begin with http:// or https:// are fetched")
        if url.userinfo:
            raise ImageError("an address with a user or password is not fetched")
        port = url.port or PORTS[url.scheme]
        if (url.host, port) in self._hosts:
            return
        if self._hosts and (url.host, None) not in self._hosts:
            raise ImageError("this service does not fetch from that host: see --fetch-from")
        if port not in PORTS.values():
            raise ImageError("only ports 80 and 443 are asked")

    async def _ask(self, url: httpx.URL, budget: "_Budget") -> tuple[bytes, str | None]:
        """Return the file at an address, or where the server says that it is."""
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        headers = [("Host", url.netloc.decode()), *HEADERS]
        asked = self._pool.stream("GET", target, headers=headers, extensions={"timeout": TIMES})
        async with asked as answer:
            fields = httpx.Headers(answer.headers)
            if answer.status in (301, 302, 303, 307, 308) and "location" in fields:
                return b"", fields["location"]
            if answer.status != 200:
                raise ImageError(f"its server answers with status {answer.status}")
            if fields.get("content-encoding", "identity") != "identity":
                raise ImageError("its server sends it packed, which is not read here")
            content = bytearray()
            async for block in answer.aiter_stream():
                budget.take(len(block))
                content += block
        return bytes(content), None


class _Budget:
    """Bytes that are left of what a request may fetch."""

    def __init__(self, most: int) -> None:
        self._most, self._left = most, most

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ImageError(f"more than {self._most:,} bytes: send smaller images, or fewer")


def _read_host(text: str) -> tuple[str, int | None]:
    """Return host and port of an entry of ``hosts``. Raise ServiceError if it is none.

    >>> _read_host("Images.example:8443"), _read_host("images.example")
    (('images.example', 8443), ('images.example', None))
    """
    try:
        url = httpx.URL(f"any://{text}")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if not url.host or url.raw_path not in (b"", b"/") or url.userinfo:
        raise ServiceError(f"--fetch-from {text!r}: give HOST or HOST:PORT")
    return url.host, url.port
