"""Tokens that let clients in: kept as hashes in a file, which may change while the service runs.

A token is random and long, so that nobody can guess it from its SHA-256. Its scope says what its
client may do: ``read``, or ``write``, which includes reading. A file of an earlier version holds
hashes alone, of scope ``read``.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from irgen.errors import IrgenError, ServiceError
from irgen.files.records import read_json, write_json

Scope = Literal["read", "write"]
BYTES = 32  # of a token: 256 bits


@dataclass(frozen=True)
class Token:
    """A token as it is kept: the ``name`` of its client, its ``sha256``, and its scope."""

    name: str
    sha256: str
    scope: Scope


class Tokens:
    """Tokens of a file. The file is read again when it has changed, so that a token can be
    added or taken away without a restart. Without a file, or with a damaged one, nobody is let
    in."""

    def __init__(self, path: Path) -> None:
        self._path, self._time = path, 0
        self._tokens: list[Token] = []

    def find(self, authorization: str | None) -> Token | None:
        """Return the token in an Authorization header: of ``Bearer``, or the password of ``Basic``,
        which browsers ask for. None if it is none of the tokens."""
        given = _read_token(authorization or "")
        if given is None:
            return None
        sha256 = _hash(given).encode()
        matches = [
            token
            for token in self._load()
            if hmac.compare_digest(token.sha256.encode(), sha256)  # takes equally long for all
        ]
        return matches[0] if matches else None

    def _load(self) -> list[Token]:
        try:
            time = self._path.stat().st_mtime_ns
            if time != self._time:
                self._tokens, self._time = _read(self._path), time
        except (OSError, IrgenError):
            return []
        return self._tokens


def create_token(path: Path, name: str, scope: Scope = "read") -> str:
    """Return a new token and keep its hash under ``name``; an earlier one of the name ends."""
    text = secrets.token_urlsafe(BYTES)
    others = [token for token in _read_existing(path) if token.name != name]
    _write(path, [*others, Token(name, _hash(text), scope)])
    return text


def delete_token(path: Path, name: str) -> None:
    """End a token. Raise ServiceError if there is none of that name."""
    tokens = _read_existing(path)
    names = [token.name for token in tokens]
    if name not in names:
        raise ServiceError(f"{path} has no token {name!r}; there are: {', '.join(names) or 'none'}")
    _write(path, [token for token in tokens if token.name != name])


def _write(path: Path, tokens: list[Token]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path, {token.name: {"sha256": token.sha256, "scope": token.scope} for token in tokens}
    )
    path.chmod(0o600)


def _read_existing(path: Path) -> list[Token]:
    return _read(path) if path.exists() else []


def _read(path: Path) -> list[Token]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise _damaged(path)
    return [_read_entry(path, name, value) for name, value in values.items()]


def _read_entry(path: Path, name: str, value: Any) -> Token:
    match value:
        case str() | {"sha256": str(), "scope": "read"}:
            return Token(name, value if isinstance(value, str) else value["sha256"], "read")
        case {"sha256": str(sha256), "scope": "write"}:
            return Token(name, sha256, "write")
    raise _damaged(path)


def _damaged(path: Path) -> ServiceError:
    return ServiceError(f"{path} is no file of tokens: delete it and make new ones")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _read_token(authorization: str) -> str | None:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value).decode().partition(":")[2]
    except ValueError:  # no base64 or no text
        return None
