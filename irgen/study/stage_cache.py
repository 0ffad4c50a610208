"""Share stage results between trials: a stage never runs twice with the same inputs.

Results lie in ``<cache>/<stage>-<key>``. The key covers all inputs: parameters and code, as
``dvc.yaml`` declares them, the encoder's weights, and the content of earlier stages' results. If
changed code writes the same content, later stages do not run again. A stage works in a folder
``.<stage>-<key>.tmp``, which is renamed when the stage ends. So results are complete, and a stage
that was killed continues where it was.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock

from irgen.checkpoints.fingerprint import weights_digest
from irgen.compute.machine import prepare
from irgen.errors import ArtifactError
from irgen.evaluation.latency import name_processor
from irgen.files.digests import digest, file_digest
from irgen.files.records import read_json, write_sealed_json
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.params.strict import flatten

SUMMARY = "about.json"
TIMED = ("evaluate", "baselines")  # their results include times


@dataclass(frozen=True)
class Inputs:
    """Inputs of a stage: files or folders of ``code``, keys or sections of ``params``, and the
    stages ``upstream``."""

    code: tuple[str, ...]
    params: tuple[str, ...]
    upstream: tuple[str, ...]


BASELINES = Inputs(  # a stage of comparisons only, so dvc.yaml does not have it
    code=(
        "irgen/catalog/images",
        "irgen/checkpoints",
        "irgen/encoding",
        "irgen/evaluation",
        "irgen/index",
        "irgen/models",
        "irgen/search",
        "irgen/stages/baselines.py",
        "irgen/training",
    ),
    params=(
        "augment",
        "baselines",
        "compute.precision",
        "encoder",
        "evaluate",
        "seed",
        "tokenizer",
    ),
    upstream=("catalog", "features", "tokenizer", "identifiers", "retriever"),
)


@dataclass(frozen=True)
class StageResult:
    """Folders that a stage wrote, and the digest of the content of ``data``."""

    content: str
    data: Path
    reports: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Folders of a project: its ``root``, and the caches of stage results and of encodings."""

    root: Path
    cache: Path
    encodings: Path


def list_stages(root: Path) -> list[str]:
    """Return the stages of the project's ``dvc.yaml`` in their order, up to the one that measures
    the index: what follows it is about a served index."""
    stages = list(_read_pipeline(root))
    return stages[: stages.index("evaluate") + 1]


def _read_pipeline(root: Path) -> dict[str, Any]:
    pipeline: dict[str, Any] = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    return pipeline["stages"]


def load_inputs(root: Path, stage: str) -> Inputs:
    """Return the inputs of a stage as the project's ``dvc.yaml`` declares them, or BASELINES."""
    if stage == "baselines":
        return BASELINES
    entry = _read_pipeline(root)[stage]
    deps = entry.get("deps", [])
    return Inputs(
        code=tuple(path for path in deps if path.startswith("irgen/")),
        params=tuple(entry.get("params", [])),
        upstream=tuple(dict.fromkeys(p.split("/")[1] for p in deps if p.startswith("data/"))),
    )


def digest_code(root: Path, *stages: str) -> str:
    """Return the digest of the code that these stages depend on."""
    paths = {root / path for stage in stages for path in load_inputs(root, stage).code}
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))}
    sources = sorted(file for file in files if file.is_file() and file.suffix != ".pyc")
    return digest([(file.relative_to(root).as_posix(), file_digest(file)) for file in sources])


def digest_folder(folder: Path) -> str:
    """Return the digest of all files below a folder. Skip files whose name begins with a dot, which
    a killed stage leaves behind."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = [path for path in files if not path.name.startswith(".")]
    return digest([(path.relative_to(folder).as_posix(), file_digest(path)) for path in named])


def make_key(root: Path, stage: str, params: Params, upstream: Mapping[str, StageResult]) -> str:
    """Return the digest of a stage's inputs. ``upstream``: results of the trial's earlier
    stages."""
    inputs = load_inputs(root, stage)
    values = {
        name: value
        for name, value in flatten(params).items()
        if any(name == key or name.startswith(f"{key}.") for key in inputs.params)
    }
    if "encoder.weights" in values:
        values["encoder.weights"] = weights_digest(params.encoder)
    if "compute.precision" in values:  # auto depends on the machine
        values["compute.precision"] = str(prepare(params.compute).autocast)
    if stage in TIMED:
        values["processor"] = name_processor(prepare(params.compute).device)
        values |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    contents = {name: upstream[name].content for name in inputs.upstream if name in upstream}
    return digest(stage, values, digest_code(root, stage), contents)[:20]


def run_cached(
    folders: Folders,
    stage: str,
    params: Params,
    upstream: Mapping[str, StageResult],
    print_line: Callable[[str], None],
) -> StageResult:
    """Return a stage's results; run it unless it ran with the same inputs before and its results
    are whole. If another process runs it, wait for that. Raises the stage's own errors."""
    finished = folders.cache / f"{stage}-{make_key(folders.root, stage, params, upstream)}"
    working = finished.with_name(f".{finished.name}.tmp")
    folders.cache.mkdir(parents=True, exist_ok=True)
    with FileLock(finished.with_name(f".{finished.name}.lock")):
        if finished.is_dir() and not _is_whole(finished, stage):
            print_line(f"{finished} is damaged; {stage} runs again")
            shutil.rmtree(finished)
        if not finished.is_dir():
            for name, result in upstream.items():
                _link(working / "data" / name, result.data)
            seconds = _run_stage(folders, stage, params, working)
            content = digest_folder(working / "data" / stage)
            write_sealed_json(working / SUMMARY, {"seconds": round(seconds, 1), "content": content})
            working.replace(finished)
            print_line(f"{stage} took {seconds:.1f} s")
    content = read_json(finished / SUMMARY)["content"]
    return StageResult(content, finished / "data" / stage, finished / "reports")


def _is_whole(finished: Path, stage: str) -> bool:
    """Tell whether the results of a stage are as it wrote them."""
    try:
        return read_json(finished / SUMMARY)["content"] == digest_folder(finished / "data" / stage)
    except ArtifactError:
        return False


def _run_stage(folders: Folders, stage: str, params: Params, working: Path) -> float:
    """Run a stage in the folder ``working`` and return the seconds it took."""
    workspace = Workspace(
        data=working / "data", cache=folders.encodings, reports=working / "reports"
    )
    workspace.reports.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    import_module(f"irgen.stages.{stage}").run(params, workspace, lambda metrics, step: None)
    return time.perf_counter() - started


def _link(path: Path, target: Path) -> None:
    """Make ``path`` a link to ``target``, whatever it linked to before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target.resolve(), target_is_directory=True)


def read_seconds(results: Mapping[str, StageResult]) -> dict[str, float]:
    """Return the seconds that each stage took when it ran, for this trial or another."""
    summaries = {stage: result.data.parents[1] / SUMMARY for stage, result in results.items()}
    return {
        stage: read_json(path)["seconds"] for stage, path in summaries.items() if path.is_file()
    }
