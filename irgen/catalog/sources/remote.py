"""A remote file as every protocol describes it: its states, its errors, and repeated tries."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from irgen.errors import GivenUpError, SourceError, UnreachableError, UnreadableError, redact

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10  # seconds between two tries; the pause doubles
STATES = 4  # how often a file may be replaced while it is read

T = TypeVar("T")


class TransientError(Exception):
    """A connection failed, but another try may succeed."""


class DisconnectedError(TransientError):
    """No connection to the server can be made."""


class DamagedError(Exception):
    """All bytes have arrived, but their checksum is wrong."""


class ReplacedError(Exception):
    """A file has changed since it was listed."""


class GoneError(Exception):
    """A file is no longer there."""


class Answer(NamedTuple):
    """A server's answer: `blocks` raises TransientError if the connection is cut, DamagedError if a
    checksum of the protocol is wrong. `sums`: checksums of the whole file, hex by algorithm."""

    blocks: Iterator[bytes]
    version: str | None = None
    sums: dict[str, str] = {}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One state of a remote file. Equal etags and sizes: the same state; etag "": unknown.

    `open(start, stop)` requests the bytes from `start` to before `stop` (None: the end); `start` is
    0 unless `ranged`. It raises GoneError or ReplacedError if the file is not in this state,
    TransientError for an answer that another try may mend, SourceError for any other failure.
    """

    url: str
    size: int | None
    etag: str
    ranged: bool
    open: Callable[[int, int | None], Answer] = field(repr=False)
    version: str | None = None
    sums: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str | None:
        """Return the file's etag for a manifest; None if its server gives none."""
        return f"{self.etag}-{self.size}" if self.etag else None


Look = Callable[[], Remote | None]


def retry_call(
    call: Callable[[], T], url: str, retries: int, kind: type[Exception] = TransientError
) -> T:
    """Return `call()`, tried again after a pause while it raises an error of this kind.

    Raises GivenUpError when all tries have failed, UnreachableError if there is no server.
    """
    failures = 0
    while True:
        try:
            return call()
        except kind as error:
            failures += 1
            if failures > retries:
                lost = isinstance(error, DisconnectedError)
                kind_raised = UnreachableError if lost else GivenUpError
                raise make_retry_error(url, failures, str(error), kind_raised) from None
            time.sleep(random.uniform(0, min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE)))


def make_retry_error(
    url: str, tries: int, reason: str, kind: type[SourceError] = GivenUpError
) -> SourceError:
    """Return the error after the last try has failed."""
    return kind(
        f"{url}: given up after {tries} tries ({redact(reason)}); run again when the service "
        "works: what has arrived is kept"
    )


def refuse_untrusted(url: str, error: Exception, variable: str) -> None:
    """Raise UnreachableError if the server's certificate is not trusted, since another try would
    fail, too. ``variable``: environment variable that names trusted ones."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        raise UnreachableError(
            f"{url}: the server's certificate is not trusted ({flatten(error)}); set {variable} to "
            "a file with the certificate of its authority"
        ) from None


def flatten(error: Exception) -> str:
    """Return an error's text in one line, without secrets and addresses in memory.

    >>> flatten(ValueError("<http.Connection object at 0x7f12>: with url: /a.jpg?sig=1 (refused)"))
    'with url: /a.jpg?*** (refused)'
    """
    text = re.sub(r"<[\w.]+ object at 0x[0-9a-f]+>:? ?", "", str(error))
    text = re.sub(r"(with url: [^\s?]*)\?\S*", r"\1?***", text)
    return redact(" ".join(text.split()))[:300]


def use_present(look: Look, use: Callable[[Remote], T]) -> T | None:
    """Return `use(remote)` for the file's present state; repeat if it is replaced meanwhile.

    None: there is no file, or no longer. Raises UnreadableError if it is replaced again and again.
    """
    for _ in range(STATES):
        remote = look()
        if remote is None:
            return None
        with suppress(ReplacedError):
            try:
                return use(remote)
            except GoneError:
                return None
    assert remote is not None, "it was there at every look"
    raise UnreadableError(
        f"{remote.url} was replaced {STATES} times while it was read; run again when it is stable"
    )
