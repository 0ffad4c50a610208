"""Errors that a user can cause and mend (one line on the command line, exit status 2), and messages
without secrets."""

import os
import re
from collections.abc import Sequence
from typing import Any


class IrgenError(Exception):
    """An error that a user can mend. Its message says what happened, where, and what to do."""


class IrgenWarning(UserWarning):
    """A problem that does not stop the work. Its message says what follows from it."""


class ReplacedWarning(IrgenWarning):
    """An index that is open was replaced by one of other models: it does not follow that one."""


class ParamsError(IrgenError):
    """A key of ``params.yaml`` is unknown, missing, ill-typed or out of range."""


class SourceError(IrgenError):
    """A data source is missing, unreadable, unsafe or empty."""


class UnreadableError(SourceError):
    """An image of a source cannot be read; the message is the reason."""


class GivenUpError(UnreadableError):
    """All tries of a request have failed. After many such errors in a row the source is down."""


class UnreachableError(SourceError):
    """A server or a bucket does not exist, or cannot be reached."""


class RemovalsError(IrgenError):
    """An update would remove more images than it may without a person's consent."""


class CatalogError(IrgenError):
    """A catalogue does not suffice: it has no usable image, no label, or too few of them; or images
    cannot be forgotten."""


class WeightsError(IrgenError):
    """Weights are missing, damaged, or of another architecture."""


class ArtifactError(IrgenError):
    """A file of an earlier stage is missing, damaged or does not fit the others."""


class IndexingError(IrgenError):
    """An operation on an index failed: there is no index, it is damaged or in use, or an id is
    unknown or already taken."""


class IdTakenError(IndexingError):
    """An id that is to be added is in the index already."""


class IdUnknownError(IndexingError):
    """An id that is to be removed is not in the index."""


class UnknownWordsError(IndexingError):
    """A query has only ``words`` that no image's texts have."""

    def __init__(self, words: Sequence[str]) -> None:
        named = " or ".join(f"“{word}”" for word in words)
        super().__init__(f"no image's texts have {named}: search for other words")
        self.words = list(words)


class LockedError(IndexingError):
    """Somebody else, ``holder``, changes the index."""

    def __init__(self, path: object, holder: str) -> None:
        super().__init__(
            f"{path} has a writer already ({holder}): try again when it has ended; the index can "
            "be read meanwhile"
        )
        self.holder = holder


class WriteFailedError(IndexingError):
    """A change of an index could not be written: the disk is full, or files are protected. Nothing
    was changed."""


class ReleaseError(IrgenError):
    """A release cannot be made, served or fetched: it is missing, damaged, or another one runs."""


class ServiceError(IrgenError):
    """A search service refuses a request, or does not answer."""


class RoomError(IrgenError):
    """No room is left on a disk for what a command is about to write."""


class NumberError(IrgenError):
    """Features, losses, embeddings or weights are NaN or infinite, or all images have the same
    vector."""


class StudyError(IrgenError):
    """A comparison cannot be made, or a part of it failed."""


class ClusterError(IrgenError):
    """A Ray cluster does not answer, or its nodes cannot do the work."""


class TrackingError(IrgenError):
    """A tracking server does not answer, or refuses a request."""


class ImageError(IrgenError):
    """An image cannot be decoded; the message is the reason."""


class ExtraError(IrgenError):
    """A package of an optional extra is not installed, or does not load."""

    def __init__(self, package: str, extra: str, error: ImportError | None = None) -> None:
        why = f" ({error})" if error and error.name != package.split(".")[0] else ""
        super().__init__(
            f"{package.replace('_', '-')} is not installed{why}: pip install -c constraints.txt "
            f"-e '.[{extra}]'"
        )


# Characters that would move a terminal's cursor, change its colours, or turn what it shows round.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    r"""Return text, such as a file name, as one line that a terminal can show.

    >>> print(escape_controls("cat/\n1\x1b[31m é.jpg"))
    cat/\n1\x1b[31m é.jpg
    """
    return CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)


def format_line(message: str) -> str:
    """Return a message as the command line prints it: in one line, without control characters."""
    return escape_controls(" ".join(message.split()))


SECRET_NAMES = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|(ACCESS|API|CUSTOMER)_?KEY")
# Each takes time in proportion to the text, which strangers may have written: it begins at a word,
# or matches whatever follows.
USER = re.compile(r"\b(\w+://)[^/@\s]*@")
ADDRESS = re.compile(r"(https?://[^\s?#]+)(\?[^\s'\")]+)?")
SHORTEST_SECRET = 8  # a shorter value of such a variable may be any word


def redact(value: Any) -> Any:
    """Return ``value`` without the secrets in its strings: passwords and queries of URLs, and the
    values of environment variables that are named like secrets.

    >>> redact({"source": "https://me:pw@host/a.csv?X-Amz-Signature=1"})
    {'source': 'https://***@host/a.csv?***'}
    """
    return _redact(value, _list_secrets())


def _list_secrets() -> list[str]:
    """Return the values of the environment variables that are named like secrets."""
    names = (name for name in os.environ if SECRET_NAMES.search(name.upper()))
    return [secret for name in names if len(secret := os.environ[name]) >= SHORTEST_SECRET]


def _redact(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {key: _redact(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redact(item, secrets) for item in value]
    if not isinstance(value, str):
        return value
    value = USER.sub(r"\1***@", value)
    value = ADDRESS.sub(lambda match: match[1] + ("?***" if match[2] else ""), value)
    for secret in secrets:
        value = value.replace(secret, "***")
    return value
