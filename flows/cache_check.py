"""Find damaged objects in DVC's cache: an object's name is its MD5 sum.

DVC does not check that, and would restore a damaged object into ``data``. Flows check what DVC has
just restored. To check the whole cache by hand: ``python -m flows.cache_check``.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.output import Output
from dvc.repo import Repo

DIR = ".dir"  # ends the names of lists of a folder's files


def delete_damaged(root: Path, stage: str) -> list[str]:
    """Delete the damaged objects of a stage's outputs, and the outputs that hold a copy of one.
    Return the paths of these outputs; the next ``dvc repro`` makes them again."""
    paths = []
    with Repo(str(root)) as repo:
        cache = repo.cache.local
        for out in repo.stage.load_one(str(root / "dvc.yaml"), stage).outs:
            damaged = [path for path in _list_objects(cache, out) if is_damaged(path)]
            for path in damaged:
                path.unlink()
            if damaged:
                _delete(Path(out.fspath))
                paths.append(str(out))
    return paths


def _list_objects(cache: Any, out: Output) -> Iterator[Path]:
    """Yield the objects of an output that are in the cache: of a folder, its list comes last."""
    oid = out.hash_info.value if out.use_cache and out.hash_info else None
    if oid is None:
        return
    path = Path(cache.oid_to_path(oid))
    if oid.endswith(DIR) and path.exists() and not is_damaged(path):
        files = (Path(cache.oid_to_path(file["md5"])) for file in json.loads(path.read_bytes()))
        yield from (file for file in files if file.exists())
    if path.exists():
        yield path


def is_damaged(path: Path) -> bool:
    """Tell whether an object's content differs from its name."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() != (
            path.parent.name + path.name.removesuffix(DIR)
        )


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main() -> int:
    """Delete every damaged object in the cache of the project in this folder, and name it."""
    with Repo() as repo:
        objects = sorted(Path(repo.cache.local.path).glob("??/*"))
    damaged = [path for path in objects if path.is_file() and is_damaged(path)]
    for path in damaged:
        path.unlink()
        print(f"deleted {path}: it was damaged")
    print(f"{len(objects):,} objects, {len(damaged):,} of them were damaged")
    if damaged:
        print("Now delete the outputs that are damaged, and run dvc repro, or dvc pull.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
