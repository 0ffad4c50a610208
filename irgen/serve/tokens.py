"""Tokens that let clients in: kept as hashes in a file, which may change while the service runs.

A token is random and long, so that nobody can guess it from its SHA-256.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path

from irgen.errors import IrgenError, ServiceError
from irgen.files.records import read_json, write_json

BYTES = 32  # of a token: 256 bits


class Tokens:
    """Hashes of tokens by name. The file is read again when it has changed, so that a token can be
    added or taken away without a restart. Without a file, or with a damaged one, nobody is let
    in."""

    def __init__(self, path: Path) -> None:
        self._path, self._time = path, 0
        self._hashes: dict[str, str] = {}

    def find(self, authorization: str | None) -> str | None:
        """Return the name of the token in an Authorization header: of ``Bearer``, or the password
        of ``Basic``, which browsers ask for. None if it is none of the tokens."""
        token = _read_token(authorization or "")
        if token is None:
            return None
        given = _hash(token)
        matches = [
            name
            for name, known in self._load().items()
            if hmac.compare_digest(known.encode(), given.encode())
        ]
        return matches[0] if matches else None

    def _load(self) -> dict[str, str]:
        try:
            time = self._path.stat().st_mtime_ns
            if time != self._time:
                self._hashes, self._time = _read(self._path), time
        except (OSError, IrgenError):
            return {}
        return self._hashes


def create_token(path: Path, name: str) -> str:
    """Return a new token and keep its hash under ``name``; an earlier one of the name ends."""
    token = secrets.token_urlsafe(BYTES)
    _write(path, (_read(path) if path.exists() else {}) | {name: _hash(token)})
    return token


def delete_token(path: Path, name: str) -> None:
    """End a token. Raise ServiceError if there is none of that name."""
    hashes = _read(path) if path.exists() else {}
    if name not in hashes:
        names = ", ".join(hashes) or "none"
        raise ServiceError(f"{path} has no token {name!r}; there are: {names}")
    _write(path, {other: known for other, known in hashes.items() if other != name})


def _write(path: Path, hashes: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, hashes)
    path.chmod(0o600)


def _read(path: Path) -> dict[str, str]:
    hashes = read_json(path)
    if not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
        raise ServiceError(f"{path} is no file of tokens: delete it and make new ones")
    return hashes


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
    except (binascii.Error, UnicodeDecodeError):
        return None
