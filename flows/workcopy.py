"""A copy of the project to experiment in: Git's files as they are now, DVC's cache shared."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.repo import Repo

from flows import graph
from irgen.tracking import run_log

NAMES = "compare-*"
LOCK_SECONDS = 5.0


@contextmanager
def of(root: Path, name: str) -> Iterator[Path]:
    """A copy by a name of NAMES, gone when the block ends; if its process is killed, when the next
    copy is made. It lies where DVC has the folders of its own experiments, so that stages find the
    project's cache and journals as they do there."""
    place = root / ".dvc" / "tmp" / "exps" / name
    _clear(place.parent)
    with run_log.locked(_lock(place), seconds=LOCK_SECONDS) as mine:
        assert mine, f"{place} is another process's"
        try:
            _make(root, place)
            yield place
        finally:
            _remove(place)


def _make(root: Path, place: Path) -> None:
    _git(root, "clone", "--quiet", "--shared", str(root), str(place))
    _name_somebody(place)
    _bring_changes(root, place)
    with Repo(str(root)) as repo:
        cache = Path(repo.cache.local.path).parents[1]
    for file in (root / ".dvc").glob("config.local"):
        shutil.copyfile(file, place / ".dvc" / file.name)
    _dvc(place, "config", "--local", "cache.dir", str(cache))
    _dvc(place, "checkout", "--quiet", "--allow-missing")


def _clear(folder: Path) -> None:
    """Removes the copies of processes that are no more: their locks are free."""
    for place in folder.glob(NAMES):
        if place.is_dir() and not run_log.is_held(_lock(place)):
            _remove(place)


def _remove(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    _lock(place).unlink(missing_ok=True)


def _lock(place: Path) -> Path:
    """The file beside a copy that is locked as long as its process lives."""
    return place.with_name(f"{place.name}.lock")


def _name_somebody(place: Path) -> None:
    """DVC commits each experiment; a worker's user may have no name in Git."""
    for key, value in (("user.name", "irgen"), ("user.email", "irgen@localhost")):
        asked = ["git", "-C", str(place), "config", key]
        if subprocess.run(asked, capture_output=True).returncode:
            _git(place, "config", key, value)


def _bring_changes(root: Path, place: Path) -> None:
    """Whatever is not committed of Git's files, and the pipeline's own even if Git has none of
    them: a lock file that updates changed, for one."""
    changed = _git(root, "diff", "--name-only", "-z", "HEAD").split("\0")
    for name in [*changed, "dvc.lock", "dvc.yaml", "params.yaml"]:
        source, target = root / name, place / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        elif name:
            target.unlink(missing_ok=True)


def experiment(place: Path, name: str, settings: list[str]) -> list[str]:
    """The command that runs an experiment in the copy: all that comes after the stages that look
    outside, so that every point has the same data."""
    nodes = graph.read(place)
    outside = {stage for stage, node in nodes.items() if node.always}
    first = [stage for stage, node in nodes.items() if outside.intersection(node.upstream)]
    command = [sys.executable, "-m", "dvc", "exp", "run", "-n", name, *settings]
    return [*command, "--downstream", *first] if first else command


def bring(place: Path, root: Path, name: str) -> None:
    """Makes the copy's experiment one of the project's."""
    refs = _git(place, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    for ref in refs:
        if ref.endswith(f"/{name}"):
            _git(root, "fetch", "--quiet", str(place), f"+{ref}:{ref}")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
    ).stdout


def _dvc(root: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True
    )
