"""Bring what is served up to date, again and again, while the old index answers."""

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger("irgen.serve")


class Refresh:
    """Work that is repeated every ``seconds``. ``work`` raises if it cannot be done; ``failure``
    says what that means. ``error``: why the last try failed, None if it did not."""

    def __init__(self, work: Callable[[], Any], *, seconds: float, failure: str) -> None:
        self.seconds = seconds
        self.error: str | None = None
        self._work, self._failure = work, failure

    def look(self) -> bool:
        """Do the work; return whether it succeeded. Log an error once, not at every look."""
        before = self.error
        try:
            self._work()
            self.error = None
        except Exception as error:  # whatever it is, the old index goes on
            self.error = f"{self._failure}: {error}"
            if self.error != before:
                log.error("the index is not refreshed", extra={"fields": {"reason": self.error}})
        return self.error is None
