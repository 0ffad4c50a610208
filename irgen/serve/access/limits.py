"""Limit how many requests each client may send in a time."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

from irgen.errors import ServiceError

SECONDS = {"s": 1, "min": 60, "h": 3600}
BURST_SECONDS, LEAST_BURST = 5, 10  # of the rate may be sent at once; and at least so many
MOST_CLIENTS = 10_000  # remembered; then the one that came longest ago is forgotten


class RateLimit:
    """At most ``rate`` requests a second of each client, and those of BURST_SECONDS at once after a
    pause."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._clock = 1 / rate, clock
        burst = max(LEAST_BURST, int(rate * BURST_SECONDS))
        self._ahead = (burst - 0.999) * self._interval  # seconds; not 1, for the sake of rounding
        self._times: OrderedDict[str, float] = OrderedDict()  # when all it sent will have been due

    def count(self, client: str) -> float:
        """Count a request of a client; return 0, or the seconds until it may send this one."""
        now = self._clock()
        due = max(now, self._times.get(client, now))
        wait = due - now - self._ahead
        if wait > 0:
            return wait
        self._times[client] = due + self._interval
        self._times.move_to_end(client)
        if len(self._times) > MOST_CLIENTS:
            self._times.popitem(last=False)
        return 0.0


def parse_rate(text: str) -> float:
    """Return the requests a second of a rate such as ``20/s``. Raise ServiceError if it is none.

    >>> parse_rate("20/s"), parse_rate("30/min")
    (20.0, 0.5)
    """
    match = re.fullmatch(r"(\d{1,9})/(s|min|h)", text)
    if match is None or int(match[1]) == 0:
        raise ServiceError(
            f"--rate {text!r}: give a number of requests, as in 20/s, 100/min or 9/h"
        )
    return int(match[1]) / SECONDS[match[2]]


def name_client(address: str) -> str:
    """Return what identifies a client by its IP address: of IPv6 the network of 64 bits, which one
    customer has for himself.

    >>> name_client("192.0.2.7"), name_client("2001:db8::7")
    ('192.0.2.7', '2001:db8::/64')
    """
    try:
        is_long = isinstance(ip_address(address), IPv6Address)
    except ValueError:  # what a proxy says
        return address[:50]
    return str(ip_network((address, 64), strict=False)) if is_long else address
