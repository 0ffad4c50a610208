"""Stages whose results points share: what ran with the same inputs before is not run again.

A stage's results lie below ``<cache>/<stage>-<key>``; the key is made of all that decides them:
the stage's parameters and code, as ``dvc.yaml`` declares them, the encoder's weights, and what the
stages before it have written: where other code writes the same, nothing after it runs again. A
stage works in a folder that is named after its key, and that gets its name when the stage has
ended: what is there is whole, and what a kill has left is gone on with by whoever needs the same.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml

from irgen.checkpoints.weights import weights_digest
from irgen.compute import prepare
from irgen.evaluation.measuring import processor
from irgen.files import digest, file_digest, read_json, write_json
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.tracking.run_log import locked
from irgen.workspace import Workspace

ABOUT = "about.json"
LONGEST = 7 * 86_400.0  # seconds that another comparison's stage is waited for
TIMED = ("evaluate", "baselines")  # whose results have times in them
# What can decide the results of a stage that is not in dvc.yaml:
CODE = (
    *("artifacts", "catalog", "evaluation", "models", "search", "training"),
    *("compute.py", "encoding.py", "weights.py"),
)
PARAMS = ("augment", "baselines", "compute.precision", "encoder", "evaluate", "seed", "tokenizer")


@dataclass(frozen=True)
class Declared:
    """What decides a stage's results: files of code, keys of params.yaml, stages before it."""

    code: tuple[str, ...]
    params: tuple[str, ...]
    upstream: tuple[str, ...]


def declared(root: Path, stage: str, before: tuple[str, ...]) -> Declared:
    """The stage as the project's ``dvc.yaml`` declares it. One that is not there depends on all
    stages ``before`` it, on CODE and PARAMS."""
    tree = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    entry = tree["stages"].get(stage)
    if entry is None:
        files = (path.relative_to(root).as_posix() for path in (root / "irgen").rglob("*.py"))
        relevant = tuple(f"irgen/{name}" for name in (*CODE, f"stages/{stage}.py"))
        return Declared(
            tuple(sorted(path for path in files if path.startswith(relevant))), PARAMS, before
        )
    code = [path for path in entry.get("deps", []) if path.startswith("irgen/")]
    data = [path.split("/")[1] for path in entry.get("deps", []) if path.startswith("data/")]
    return Declared(tuple(code), tuple(entry.get("params", [])), tuple(dict.fromkeys(data)))


def code_of(root: Path, stages: tuple[str, ...]) -> str:
    """The digest of the code that decides the results of these stages."""
    paths = {path for stage in stages for path in declared(root, stage, ()).code}
    return digest([(path, file_digest(root / path)) for path in sorted(paths)])


@dataclass(frozen=True)
class Done:
    """A stage's results: the digest of what they are, and the folders they are in."""

    content: str
    data: Path
    reports: Path | None = None


def content_of(folder: Path) -> str:
    """The digest of all files below a folder, by their paths in it; not of what a kill has left
    half written, whose name begins with a dot."""
    whole = (path for path in folder.rglob("*") if path.is_file())
    files = sorted(path for path in whole if not path.name.startswith("."))
    return digest([(path.relative_to(folder).as_posix(), file_digest(path)) for path in files])


def key(root: Path, stage: str, params: Params, done: Mapping[str, Done]) -> str:
    """The digest of all that decides the stage's results; ``done`` are the stages before it. A
    stage that was left out before it counts as such."""
    about = declared(root, stage, tuple(done))
    values = flatten(params)
    chosen = {
        name: value
        for name, value in values.items()
        for each in about.params
        if name == each or name.startswith(f"{each}.")
    }
    if "encoder.weights" in chosen:
        chosen["encoder.weights"] = weights_digest(params.encoder)
    if "compute.precision" in chosen:  # auto is another one on another machine
        chosen["compute.precision"] = str(prepare(params.compute).autocast)
    if stage in TIMED:
        chosen |= {"processor": processor(prepare(params.compute).device)}
        chosen |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    code = {path: file_digest(root / path) for path in about.code}
    upstream = {name: done[name].content if name in done else "left out" for name in about.upstream}
    return digest(stage, chosen, code, upstream)[:20]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where points work: ``root`` of the project, ``cache`` of what they share, and the
    ``encodings`` that all the project shares."""

    root: Path
    cache: Path
    encodings: Path


def brought(
    place: Place,
    stage: str,
    params: Params,
    done: Mapping[str, Done],
    tell: Callable[[str], None],
) -> Done:
    """The stage's results, by running it if nobody has with the same inputs; if somebody is just
    at it, that is waited for. Raises what the stage raises."""
    own = key(place.root, stage, params, done)
    kept = place.cache / f"{stage}-{own}"
    working = kept.with_name(f".{kept.name}.tmp")
    with locked(kept.with_name(f".{kept.name}.lock"), seconds=LONGEST):
        if not kept.is_dir():
            for name, other in done.items():
                _link(working / "data" / name, other.data)
            workspace = Workspace(
                data=working / "data", cache=place.encodings, reports=working / "reports"
            )
            workspace.reports.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            import_module(f"irgen.stages.{stage}").run(params, workspace, _unheard)
            seconds = time.perf_counter() - started
            about = {"stage": stage, "seconds": round(seconds, 1)}
            about["content"] = content_of(working / "data" / stage)
            write_json(working / ABOUT, about)
            working.replace(kept)
            tell(f"{stage} took {seconds:.1f} s")
    return Done(read_json(kept / ABOUT)["content"], kept / "data" / stage, kept / "reports")


def _unheard(metrics: dict[str, float], step: int) -> None:
    """Metrics of an epoch: the stage's history keeps them."""


def _link(path: Path, target: Path) -> None:
    """Makes ``path`` a link to ``target``, whatever it linked to before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target.resolve(), target_is_directory=True)


def seconds(done: Mapping[str, Done]) -> dict[str, float]:
    """What each stage took when it ran, whichever point it ran for."""
    found: dict[str, float] = {}
    for stage, each in done.items():
        path = each.data.parents[1] / ABOUT
        if path.is_file():
            about: dict[str, Any] = read_json(path)
            found[stage] = about["seconds"]
    return found
