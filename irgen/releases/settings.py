"""Settings that releases need, read one by one: a wrong value elsewhere in ``params.yaml`` must not
keep anybody from serving another release."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irgen.errors import ParamsError
from irgen.params import Params, Release, Tracking
from irgen.params.strict import parse, read_yaml
from irgen.tracking import locations


@dataclass(frozen=True, kw_only=True)
class ReleaseSettings:
    """Section ``release``, and the name of the builds' experiment in MLflow."""

    release: Release
    experiment: str


# Called only before bucket and MLflow are updated; may raise ParamsError.
ReadSettings = Callable[[], ReleaseSettings]


def select(params: Params) -> ReleaseSettings:
    """Return these settings of a project."""
    return ReleaseSettings(release=params.release, experiment=locations.experiment_name(params))


def read(path: Path) -> ReleaseSettings:
    """Read these settings from ``params.yaml`` and no others. Raise ParamsError if one is wrong."""
    sections = read_yaml(path)
    tracking: Tracking = _parse(Tracking, sections, "tracking", path)
    source = _section(_section(sections, "download"), "source")
    if not isinstance(source, str):
        raise ParamsError(f"{path.name}: download: source: expected text, found {source!r}")
    return ReleaseSettings(
        release=_parse(Release, sections, "release", path),
        experiment=locations.name_experiment(tracking.experiment, source),
    )


def read_release(path: Path) -> Release:
    """Read section ``release`` from ``params.yaml``. Raise ParamsError if it is wrong."""
    section: Release = _parse(Release, read_yaml(path), "release", path)
    return section


def _parse(kind: Any, sections: Any, name: str, path: Path) -> Any:
    value = _section(sections, name)
    return parse(kind, {} if value is None else value, where=f"{path.name}: {name}")


def _section(tree: Any, name: str) -> Any:
    return tree.get(name) if isinstance(tree, dict) else None
