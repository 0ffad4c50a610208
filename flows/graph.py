"""Read DVC's stage graph in the order of work, with the Prefect options of each stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
from dvc.repo import Repo
from dvc.repo.index import Index

from irgen.params.strict import parse


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Prefect's options of a stage: ``meta: {prefect: {...}}`` in ``dvc.yaml``, which DVC ignores.

    With ``tags`` a stage obeys Prefect's limits on those tags, and asks the server before it
    starts; a server on SQLite sometimes takes seconds to answer.
    """

    retries: int = 0
    retry_delay_seconds: float = 10.0
    timeout_seconds: float = 86_400.0  # of an attempt; then its process group is killed
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Node:
    """A stage: the names of the stages whose outputs it needs, and its Prefect options."""

    upstream: tuple[str, ...]
    options: TaskOptions
    always: bool  # runs each time, whatever its dependencies (DVC's always_changed)


def read(root: Path) -> dict[str, Node]:
    """Return every stage by its name, producers before consumers, else in ``dvc.yaml``'s order.

    A ``dvc.yaml`` in another folder is another pipeline, as for ``dvc repro``; folders are not
    searched, since they may hold millions of images. Raises ParamsError for an unknown Prefect
    option, DVC's own errors for a pipeline that cannot be read.
    """
    with Repo(str(root)) as repo:
        index = _read_pipeline(repo)
        order = {stage: number for number, stage in enumerate(index.stages)}
        edges = index.graph  # from consumer to producer
        stages = networkx.lexicographical_topological_sort(
            edges.reverse(), key=lambda stage: order[stage]
        )
        return {
            _name(stage): Node(
                upstream=tuple(
                    map(_name, sorted(edges.successors(stage), key=lambda needed: order[needed]))
                ),
                options=read_options(_name(stage), stage.meta),
                always=bool(stage.always_changed),
            )
            for stage in stages
        }


def _read_pipeline(repo: Repo) -> Index:
    """Return the stages of the project's ``dvc.yaml``, and of the files ``*.dvc`` that ``dvc add``
    made for their inputs."""
    root = Path(repo.root_dir)
    pipeline = Index.from_file(repo, str(root / "dvc.yaml"))
    paths = {Path(dependency.fspath) for stage in pipeline.stages for dependency in stage.deps}
    paths |= {folder for path in paths for folder in path.parents if root in folder.parents}
    added = sorted(file for path in paths if (file := Path(f"{path}.dvc")).is_file())
    indexes = [pipeline, *(Index.from_file(repo, str(file)) for file in added)]
    return Index.from_indexes(repo, indexes)


def _name(stage: Any) -> str:
    """Return DVC's name of a stage, as seen from the project's folder."""
    file, name = stage.path_in_repo, getattr(stage, "name", None)
    if file == "dvc.yaml":
        return str(name)
    return f"{file}:{name}" if name else file


def read_options(stage: str, meta: Any) -> TaskOptions:
    """Return the Prefect options in a stage's ``meta``, with defaults for missing ones.

    >>> read_options("tokenizer", {"prefect": {"retries": 2}}).retries
    2
    """
    options = meta.get("prefect", {}) if isinstance(meta, dict) else {}
    where = f"dvc.yaml: {stage}: meta: prefect"
    return parse(TaskOptions, options, where=where)
