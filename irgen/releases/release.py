"""What is known of one release, as ``release.json`` beside the index's own files."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from irgen.errors import ReleaseError
from irgen.files import checksums, digest, read_json, write_json

ABOUT = "release.json"
# Files in a release's folder that are no part of the index that was released:
NOT_CONTENT = {ABOUT, "lock", "changes.sqlite-shm"}
State = Literal["candidate", "rejected", "released", "withdrawn"]


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release. ``bundle`` is the digest of the index's files, which are in ``files`` with size
    and SHA-256 each.

    ``state``: a candidate was not judged yet; the gate rejected it; it was released, that is, it
    is or was the champion; or it was withdrawn by a rollback, and is not released again by itself.
    ``previous``: the version of the champion it took the place of. ``verdict``: the gate's, and
    ``basis``, what that rests on. ``pushed``: where in S3 it is. ``registered``: its version in
    MLflow, in the store with the key ``registry``. Empty, or None, where there is none.
    """

    version: int
    bundle: str
    files: dict[str, dict[str, Any]] = field(repr=False)
    state: State = "candidate"
    revision: int = 0
    commit: str = ""
    build: str = ""
    made: int = 0  # milliseconds since 1970; to be read by people
    metrics: dict[str, float] = field(default_factory=dict, repr=False)
    verdict: dict[str, Any] | None = None
    basis: str = ""
    previous: int | None = None
    pushed: str = ""
    registered: str = ""
    registry: str = ""

    @property
    def name(self) -> str:
        """Its folder's name.

        >>> Release(version=7, bundle="ab12cd34ef", files={}).name
        '0007-ab12cd34'
        """
        return f"{self.version:04d}-{self.bundle[:8]}"

    @property
    def size(self) -> int:
        """Bytes of the index."""
        return sum(each["size"] for each in self.files.values())

    def but(self, **changes: Any) -> "Release":
        """The same with some fields changed."""
        return replace(self, **changes)


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the files of an index, by their paths; but for what comes and goes with a
    writer."""
    return {name: each for name, each in checksums(folder).items() if is_content(name)}


def is_content(name: str) -> bool:
    """Whether a file of a release's folder is of the index that was released.

    >>> is_content("models/encoder.safetensors"), is_content("lock"), is_content(".current.1.tmp")
    (True, False, False)
    """
    return name not in NOT_CONTENT and not Path(name).name.startswith(".")


def bundle_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """What stands for the content of an index: equal for equal files."""
    return digest({name: each["sha256"] for name, each in files.items()})


def read(folder: Path) -> Release:
    """The release in ``folder``. Raises ReleaseError if it is none, ArtifactError if its record is
    damaged."""
    path = folder / ABOUT
    if not path.exists():
        raise ReleaseError(f"{folder} is not a release: it has no {ABOUT}")
    return parsed(read_json(path), str(path))


def parsed(values: Any, where: str) -> Release:
    """A release from what ``write`` wrote; unknown fields, which a newer irgen may have written,
    are left out. Raises ReleaseError, naming ``where``, if one is missing."""
    names = {each.name for each in fields(Release)}
    if not isinstance(values, dict) or not {"version", "bundle", "files"} <= values.keys():
        raise ReleaseError(f"{where} is no record of a release; delete its folder")
    return Release(**{name: value for name, value in values.items() if name in names})


def write(folder: Path, release: Release) -> None:
    """Writes the record, whole or not at all."""
    write_json(folder / ABOUT, asdict(release))
