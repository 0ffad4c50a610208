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
    """How Prefect runs a stage: ``meta: {prefect: {...}}`` of ``dvc.yaml``, which DVC ignores.

    With ``tags`` a stage obeys Prefect's limits on those tags, and asks the server before it
    starts; on SQLite the server now and then answers seconds later.
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

    The stages of a ``dvc.yaml`` in another folder are another pipeline's, as for ``dvc repro``; no
    folder is searched for them, since it may hold millions of images. Raises ParamsError for an
    unknown Prefect option, DVC's own errors for a pipeline that cannot be read.
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
                    map(_name, sorted(edges.successors(stage), key=lambda other: order[other]))
                ),
                options=read_options(_name(stage), stage.meta),
                always=bool(stage.always_changed),
            )
            for stage in stages
        }


def _read_pipeline(repo: Repo) -> Index:
    """Return the stages of the project's own ``dvc.yaml``, and those that stand for a path that
    ``dvc add`` was given, if a stage reads that path or something in it."""
    root = Path(repo.root_dir)
    own = Index.from_file(repo, str(root / "dvc.yaml"))
    paths = {Path(dependency.fspath) for stage in own.stages for dependency in stage.deps}
    paths |= {folder for path in paths for folder in path.parents if root in folder.parents}
    added = sorted(file for path in paths if (file := Path(f"{path}.dvc")).is_file())
    return Index.from_indexes(repo, [own, *(Index.from_file(repo, str(file)) for file in added)])


def _name(stage: Any) -> str:
    """Return DVC's name of a stage, as seen from the project's folder."""
    file, own = stage.path_in_repo, getattr(stage, "name", None)
    if file == "dvc.yaml":
        return str(own)
    return f"{file}:{own}" if own else file


def read_options(stage: str, meta: Any) -> TaskOptions:
    """Return the Prefect options in a stage's ``meta``; defaults for what it leaves out.

    >>> read_options("tokenizer", {"prefect": {"retries": 2}}).retries
    2
    """
    options = meta.get("prefect", {}) if isinstance(meta, dict) else {}
    where = f"dvc.yaml: {stage}: meta: prefect"
    return parse(TaskOptions, options, where=where)
