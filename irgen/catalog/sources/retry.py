"""Trying again what may go well the next time: with pauses that grow and vary, and not for ever."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from irgen.errors import SourceError, redact

FIRST, LONGEST = 0.5, 10.0  # seconds: the first pause is at most this, no pause is longer than that

T = TypeVar("T")


class TransientError(Exception):
    """What went wrong may go well when tried again; ``wait``: the seconds the other side asks
    for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def cut_off(error: Exception) -> bool:
    """Whether a TLS connection ended in the middle of a word, as a balancer that starts again ends
    it: that may pass, a certificate that is not trusted stays so."""
    return "EOF" in str(error)


class Patience:
    """Counts the failures in a row of one piece of work."""

    def __init__(self, what: str, retries: int) -> None:
        self.what, self.retries, self.failures = what, retries, 0
        self.started = time.monotonic()

    def progressed(self) -> None:
        """Something arrived: the next failure counts as the first again."""
        self.failures = 0

    def failed(self, error: TransientError) -> None:
        """Pauses before the next try. Raises SourceError after the last one."""
        self.failures += 1
        if self.failures > self.retries:
            seconds = time.monotonic() - self.started
            raise SourceError(
                f"{self.what}: given up after {self.failures} tries in {seconds:.0f} s "
                f"({redact(str(error))}); run again when the service is well: what has arrived is "
                "kept"
            ) from None
        time.sleep(max(pause(self.failures), min(error.wait, LONGEST)))


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row: at random between nothing and a bound that
    doubles, so that many who failed at once do not come back at once."""
    return random.uniform(0, min(FIRST * 2.0 ** (failures - 1), LONGEST))


def patiently(call: Callable[[], T], what: str, retries: int) -> T:
    """What ``call`` gives, tried again while it raises TransientError; at last, SourceError."""
    patience = Patience(what, retries)
    while True:
        try:
            return call()
        except TransientError as error:
            patience.failed(error)
