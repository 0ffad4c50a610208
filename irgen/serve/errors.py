"""Errors of the service that a client is told of."""


class OverloadedError(Exception):
    """One request more than may wait. ``retry_after``: seconds until there is likely to be room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many requests wait; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class NotReadyError(Exception):
    """No index can answer yet; the message says why."""


class ForbiddenError(Exception):
    """A client may not change the index; the message says why."""


class NotFoundError(Exception):
    """There is no such image, or its file is not here."""


class OutdatedError(Exception):
    """A change was prepared for an index that another one replaces. Nothing was changed."""
