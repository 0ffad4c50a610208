"""Stages whose results points share: what ran with the same inputs before is not run again.

A stage's results lie below ``<cache>/<stage>-<key>``; the key is made of all that decides them:
the stage's parameters and code, as ``dvc.yaml`` declares them, and the keys of the stages before
it. They are moved there when the stage has ended, so what is there is whole.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from irgen.files import digest, file_digest, read_json, write_json
from irgen.params import Params, flatten
from irgen.workspace import Workspace

ABOUT = "about.json"
EVERYTHING = "."


@dataclass(frozen=True)
class Declared:
    """What decides a stage's results: files of code, keys of params.yaml, stages before it."""

    code: tuple[str, ...]
    params: tuple[str, ...]
    upstream: tuple[str, ...]


def declared(root: Path, stage: str, before: tuple[str, ...]) -> Declared:
    """The stage as the project's ``dvc.yaml`` declares it. One that is not there depends on all the
    code, all parameters and all stages ``before`` it."""
    tree = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    entry = tree["stages"].get(stage)
    if entry is None:
        code = sorted(path.relative_to(root).as_posix() for path in (root / "irgen").rglob("*.py"))
        own = [path for path in code if not path.startswith(("irgen/study/", "irgen/commands/"))]
        return Declared(tuple(own), (EVERYTHING,), before)
    code = [path for path in entry.get("deps", []) if path.startswith("irgen/")]
    data = [path.split("/")[1] for path in entry.get("deps", []) if path.startswith("data/")]
    return Declared(tuple(code), tuple(entry.get("params", [])), tuple(dict.fromkeys(data)))


def key(root: Path, stage: str, params: Params, keys: dict[str, str]) -> str:
    """The digest of all that decides the stage's results; ``keys`` are those of the stages before
    it. A stage that was left out before it counts as such."""
    about = declared(root, stage, tuple(keys))
    values = flatten(params)
    chosen = {
        name: value
        for name, value in values.items()
        for each in about.params
        if each == EVERYTHING or name == each or name.startswith(f"{each}.")
    }
    code = {path: file_digest(root / path) for path in about.code}
    upstream = {name: keys.get(name, "left out") for name in about.upstream}
    return digest(stage, chosen, code, upstream)[:20]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where points work: ``root`` of the project, ``cache`` of what they share, ``folder`` of the
    one at hand, and the ``encodings`` that all the project shares."""

    root: Path
    cache: Path
    folder: Path
    encodings: Path

    def workspace(self, stage: str) -> Workspace:
        """The folders that a stage of this point reads and writes."""
        return Workspace(
            data=self.folder / "data",
            cache=self.encodings,
            reports=self.folder / "reports" / stage,
        )


def brought(
    place: Place, stage: str, params: Params, keys: dict[str, str], tell: Callable[[str], None]
) -> str:
    """Brings the stage's results into the point's folder, running it if nobody has with the same
    inputs; returns its key. Raises what the stage raises."""
    own = key(place.root, stage, params, keys)
    kept = place.cache / f"{stage}-{own}"
    workspace = place.workspace(stage)
    data, reports = workspace.stage(stage), workspace.reports
    if not kept.is_dir():
        for path in (data, reports):
            if path.is_symlink():  # of the stage with other inputs
                path.unlink()
        reports.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        import_module(f"irgen.stages.{stage}").run(params, workspace, _unheard)
        seconds = time.perf_counter() - started
        tell(f"{stage} took {seconds:.1f} s")
        coming = kept.with_name(f".{kept.name}.tmp")
        shutil.rmtree(coming, ignore_errors=True)
        coming.mkdir(parents=True)
        data.replace(coming / "data")
        reports.replace(coming / "reports")
        write_json(coming / ABOUT, {"stage": stage, "seconds": round(seconds, 1)})
        coming.replace(kept)
    _link(data, kept / "data")
    _link(reports, kept / "reports")
    return own


def _unheard(metrics: dict[str, float], step: int) -> None:
    """Metrics of an epoch: the stage's history keeps them."""


def _link(path: Path, target: Path) -> None:
    """Makes ``path`` a link to ``target``, whatever was there."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target.resolve(), target_is_directory=True)


def seconds(place: Place, keys: dict[str, str]) -> dict[str, float]:
    """What each stage took when it ran, whichever point it ran for."""
    found: dict[str, float] = {}
    for stage, own in keys.items():
        path = place.cache / f"{stage}-{own}" / ABOUT
        if path.is_file():
            about: dict[str, Any] = read_json(path)
            found[stage] = about["seconds"]
    return found
