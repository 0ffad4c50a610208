"""Find the file of an image of an index: among the downloaded ones, among those that were added by
hand, or where it was added from."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from irgen.catalog.shards import Images
from irgen.catalog.uploads import read_upload
from irgen.errors import ArtifactError
from irgen.files.workspace import Workspace


class Pictures:
    """Image files of a project's index. Threads may share it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders = (Path(), root)  # that the path of an added file can start from
        self._workspace = Workspace.at(root)
        self._manifest_time = 0
        self._downloaded: Images | None = None

    def read(self, metadata: Mapping[str, Any]) -> bytes | None:
        """Return the bytes of an image; None if they are not here. ``metadata``: its columns
        ``sha256`` and ``path`` count; a file at ``path`` must have that SHA-256."""
        sha256, path = metadata.get("sha256"), metadata.get("path")
        if isinstance(sha256, str) and (content := read_upload(self._root, sha256)) is not None:
            return content
        downloaded = self._open_downloaded()
        if isinstance(sha256, str) and downloaded is not None and sha256 in downloaded:
            with suppress(ArtifactError):
                return downloaded.read(sha256)
        if not isinstance(path, str):
            return None
        for folder in self._folders:
            with suppress(OSError, ValueError):
                content = (folder / path).read_bytes()
                if sha256 == hashlib.sha256(content).hexdigest():  # else any file could be named
                    return content
        return None

    def _open_downloaded(self) -> Images | None:
        """Return the downloaded images, as of the last change of their manifest."""
        with suppress(OSError, ArtifactError):  # none here, or being replaced: keep it open
            time = self._workspace.manifest.stat().st_mtime_ns
            if time != self._manifest_time:
                self._downloaded = Images(self._workspace.stage("download"))
                self._manifest_time = time
        return self._downloaded
