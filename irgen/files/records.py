"""Records in JSON, some with a digest of their own, and the error for a damaged file."""

import json
import operator
from pathlib import Path
from typing import Any

from irgen.errors import ArtifactError
from irgen.files.atomic import write_bytes
from irgen.files.digests import digest

DIGEST = "irgen.sha256"
AGAIN = (
    "delete it and run again (dvc repro); if it comes back damaged, so is its copy in DVC's cache: "
    "see how-to/messages.md"
)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def write_sealed_json(path: Path, values: dict[str, Any]) -> None:
    """Write ``values`` as ``write_json`` does, with a digest that ``read_json`` checks."""
    write_json(path, values | {DIGEST: digest(values)})


def read_json(path: Path) -> Any:
    """Return the JSON value in ``path``, without the digest that ``write_sealed_json`` adds. Raises
    ArtifactError if it is missing or damaged."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing") from None
    except ValueError as error:
        raise ArtifactError(
            f"{path} is not valid JSON ({error}); delete it and run again"
        ) from None
    if isinstance(value, dict) and not _has_digest(value):
        raise damaged(path, "its checksum differs")
    return value


def _has_digest(value: dict[str, Any]) -> bool:
    """Take the digest out of a record, and tell whether it was right, or there was none."""
    for key in list(value):
        if len(key) == len(DIGEST) and sum(map(operator.ne, key, DIGEST)) <= 1:  # a flipped bit
            return bool(value.pop(key) == digest(value) and key == DIGEST)
    return True


def damaged(path: Path, reason: object, remedy: str = AGAIN) -> ArtifactError:
    """Return the error for a file that is not as it was written."""
    return ArtifactError(f"{path} is damaged ({' '.join(str(reason).split())[:200]}): {remedy}")
