"""DVC's stage graph in the order of work, with what ``meta:`` says about conducting each stage."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import networkx
from dvc.repo import Repo
from dvc.repo.index import Index

from irgen.params.strict import parse


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How a stage is conducted: ``meta: {prefect: {...}}`` of ``dvc.yaml``, which DVC ignores."""

    retries: int = 0
    retry_delay_seconds: float = 10.0
    timeout_seconds: float = 86_400.0  # an attempt's; then its process group is killed
    tags: tuple[str, ...] = ("stage",)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A stage: the names of those it needs the outputs of, and how it is conducted."""

    upstream: tuple[str, ...]
    conduct: Conduct
    always: bool  # runs each time, whatever its dependencies (DVC's always_changed)


def read(root: Path) -> dict[str, Node]:
    """Every stage by its name, producers before consumers, else in the order of ``dvc.yaml``. The
    stages of a ``dvc.yaml`` in another folder are another pipeline's, as for ``dvc repro``; they
    are not looked for, since there may be millions of images in the project's folders.

    Raises ParamsError for a ``meta: prefect:`` that says something unknown, DVC's own errors for a
    pipeline that cannot be read.
    """
    with Repo(str(root)) as repo:
        index = pipeline(repo)
        places = {stage: place for place, stage in enumerate(index.stages)}
        edges = index.graph  # from consumer to producer
        order = networkx.lexicographical_topological_sort(
            edges.reverse(), key=lambda stage: places[stage]
        )
        return {
            name(stage): Node(
                upstream=tuple(
                    map(name, sorted(edges.successors(stage), key=lambda each: places[each]))
                ),
                conduct=conduct(name(stage), stage.meta),
                always=bool(stage.always_changed),
            )
            for stage in order
        }


def pipeline(repo: Repo) -> Index:
    """The stages of the project's own ``dvc.yaml``, and those that stand for a file or folder that
    ``dvc add`` was given, if a stage reads it or what is in it."""
    root = Path(repo.root_dir)
    own = Index.from_file(repo, str(root / "dvc.yaml"))
    read = {Path(dependency.fspath) for each in own.stages for dependency in each.deps}
    read |= {above for path in read for above in path.parents if root in above.parents}
    added = sorted(path for each in read if (path := Path(f"{each}.dvc")).is_file())
    return Index.from_indexes(repo, [own, *(Index.from_file(repo, str(each)) for each in added)])


def name(stage: Any) -> str:
    """What DVC calls a stage in the project's folder, wherever this process is."""
    file, own = stage.path_in_repo, getattr(stage, "name", None)
    if file == "dvc.yaml":
        return str(own)
    return f"{file}:{own}" if own else file


def conduct(stage: str, meta: Any) -> Conduct:
    """What a stage's ``meta`` says to Prefect; defaults for what it leaves out.

    >>> conduct("tokenizer", {"prefect": {"retries": 2}}).retries
    2
    """
    said = meta.get("prefect", {}) if isinstance(meta, dict) else {}
    where = f"dvc.yaml: {stage}: meta: prefect"
    plain = asdict(Conduct()) | {"tags": list(Conduct().tags)}
    return parse(Conduct, plain | said if isinstance(said, dict) else said, where=where)
