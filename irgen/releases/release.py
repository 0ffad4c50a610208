"""One release and its record, ``release.json`` beside the files of its index."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from irgen.errors import ReleaseError
from irgen.files.digests import checksums, digest
from irgen.files.records import read_json, write_sealed_json

RECORD = "release.json"
# Files in a release's folder that are not part of the index:
NOT_RELEASED = {RECORD, "lock", "changes.sqlite-shm"}
State = Literal["candidate", "rejected", "released", "withdrawn"]


@dataclass(frozen=True, kw_only=True)
class Release:
    """One numbered copy of an index.

    ``files``: size and SHA-256 of the index's files by path. ``bundle``: the digest of ``files``.
    ``state``: *candidate*, not judged yet; *rejected* by the gate; *released*, it is or was the
    champion; *withdrawn* by a rollback, so only ``--force`` or another rollback releases it again.
    ``revision``: of the data. ``created``: milliseconds since 1970, for people to read.
    ``verdict``: the gate's; ``basis``: the digest of what the verdict depends on. ``previous``: the
    version of the champion before this one. ``pushed``: its S3 URL. ``registered``: its version in
    MLflow's model registry; ``registry``: the key of that MLflow store. Empty or None: there is
    none.
    """

    version: int
    bundle: str
    files: dict[str, dict[str, Any]] = field(repr=False)
    state: State = "candidate"
    revision: int = 0
    commit: str = ""
    build: str = ""
    created: int = 0
    metrics: dict[str, float] = field(default_factory=dict, repr=False)
    verdict: dict[str, Any] | None = None
    basis: str = ""
    previous: int | None = None
    pushed: str = ""
    registered: str = ""
    registry: str = ""

    @property
    def name(self) -> str:
        """Return the name of the release's folder.

        >>> Release(version=7, bundle="ab12cd34ef", files={}).name
        '0007-ab12cd34'
        """
        return f"{self.version:04d}-{self.bundle[:8]}"

    @property
    def size(self) -> int:
        """Return the size of the index in bytes."""
        return sum(file["size"] for file in self.files.values())


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of the index files in ``folder``, by path. Skip the record, locks and
    temporary files."""
    return {name: file for name, file in checksums(folder).items() if is_index_file(name)}


def is_index_file(name: str) -> bool:
    """Tell whether a file in a release's folder belongs to the index.

    >>> [is_index_file(name) for name in ("models/encoder.safetensors", "lock", ".current.1.tmp")]
    [True, False, False]
    """
    return name not in NOT_RELEASED and not Path(name).name.startswith(".")


def digest_files(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a digest of the content of an index: equal for equal files."""
    return digest({name: file["sha256"] for name, file in files.items()})


def read(folder: Path) -> Release:
    """Read the release in ``folder``. Raise ReleaseError if there is none, ArtifactError if its
    record is damaged."""
    path = folder / RECORD
    if not path.exists():
        raise ReleaseError(f"{folder} is not a release: it has no {RECORD}")
    return parse(read_json(path), str(path))


def parse(values: Any, source: str) -> Release:
    """Return the release that ``write`` wrote. Ignore fields that a newer irgen may have added.
    Raise ReleaseError, naming ``source``, if a field is missing."""
    names = {item.name for item in fields(Release)}
    if not isinstance(values, dict) or not {"version", "bundle", "files"} <= values.keys():
        raise ReleaseError(f"{source} is not the record of a release: delete its folder")
    return Release(**{name: value for name, value in values.items() if name in names})


def write(folder: Path, release: Release) -> None:
    """Write the record of a release atomically."""
    write_sealed_json(folder / RECORD, asdict(release))
