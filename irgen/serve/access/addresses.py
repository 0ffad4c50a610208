"""Tell which network addresses are public, and connect to no other."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from typing import Any

import httpcore

from irgen.errors import ImageError

LOOKUPS = 8  # names looked up at once
UNREACHED = "its server cannot be reached, or is not on the public internet"
UNICAST = ip_network("2000::/3")  # all that is public of IPv6: no address in it stands for IPv4
CLOSED = tuple(
    map(
        ip_network,
        (
            *("168.63.129.16/32", "192.0.0.0/24"),  # metadata of clouds: Azure, Oracle
            *("192.88.99.0/24", "2001::/23", "2002::/16"),  # tunnels
            "3fff::/20",  # of documentation
        ),
    )
)


def is_public(text: str) -> bool:
    """Tell whether an IP address belongs to the public internet, and to a single machine.

    >>> [is_public(text) for text in ("93.184.216.34", "2606:4700::6810:84e5")]
    [True, True]
    >>> [is_public(text) for text in ("10.0.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808")]
    [False, False, False]
    """
    address = ip_address(text)
    if address.version == 6 and address not in UNICAST:
        return False
    is_single = not (address.is_multicast or address.is_reserved)
    return address.is_global and is_single and not any(address in network for network in CLOSED)


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connections to hosts all of whose addresses ``is_allowed``. A name is looked up once for each
    connection, which goes to the very address that was checked."""

    def __init__(self, is_allowed: Callable[[str], bool]) -> None:
        self._is_allowed, self._network = is_allowed, httpcore.AnyIOBackend()
        # Of their own: names that nobody answers for must not hold up what else runs in threads.
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection to the first address of a host that answers. Raise ImageError, with
        the same text for every reason, if there is none."""
        for address in await self._look_up(host, port):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        raise ImageError(UNREACHED)

    async def _look_up(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError):
            raise ImageError(UNREACHED) from None
        addresses = [str(answer[4][0]) for answer in answers]
        if not all(map(self._is_allowed, addresses)):
            raise ImageError(UNREACHED)
        return addresses
