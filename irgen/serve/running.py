"""Note where the services of this machine answer, so that ``irgen search`` asks one of them.

Each process writes one file, ``.cache/serve/running/<process>.json``, when it opens an index, and
deletes it when it ends. Files of processes that were killed are ignored.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from irgen.files.records import write_json
from irgen.files.workspace import Workspace


def note(root: Path, url: str, folder: Path | str) -> None:
    """Note that this process answers at ``url`` over the index at ``folder``."""
    write_json(_file(root), {"url": url, "folder": str(folder)})


def delete(root: Path) -> None:
    """Delete the note of this process."""
    _file(root).unlink(missing_ok=True)


def find(root: Path, folder: Path) -> str | None:
    """Return the address of a service over the index at ``folder``, None if there is none."""
    for path, answers_at in _read_all(root):
        if answers_at["folder"] == str(folder.resolve()) and _is_alive(int(path.stem)):
            return answers_at["url"]
    return None


def _read_all(root: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    for path in sorted(_folder(root).glob("[0-9]*.json")):
        with suppress(OSError, ValueError):  # deleted or damaged
            yield path, json.loads(path.read_text())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _folder(root: Path) -> Path:
    return Workspace.at(root).cache / "serve" / "running"


def _file(root: Path) -> Path:
    return _folder(root) / f"{os.getpid()}.json"
