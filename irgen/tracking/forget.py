"""Delete from MLflow's files what holds images that are to be forgotten."""

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from irgen.catalog.forget import Traces
from irgen.params import Params
from irgen.tracking.locations import (
    COMPARISONS,
    DRIFT,
    RELEASES,
    STAGES,
    experiment_name,
    has_store,
)
from irgen.tracking.mlflow_store import open_client
from irgen.tracking.run_log import COPIED

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

MODELS = "models"  # folder of the logged models beside those of the runs
IMAGES_OF_INDEX = (".arrow", ".sqlite")  # files of an index that list its images


def forget_artifacts(root: Path, params: Params, traces: Traces) -> int:
    """Delete the files of this project's runs in MLflow that name an image to forget, or may hold
    images without naming them, and the models whose index has one; return how many. Those that
    MLflow has marked as deleted are among them. Raise TrackingError if MLflow does not answer."""
    if not has_store(root):
        return 0
    with open_client(root) as client:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        count = 0
        for part in ("", STAGES, RELEASES, DRIFT, COMPARISONS):
            experiment = client.get_experiment_by_name(experiment_name(params, part))
            if experiment is not None:
                repository = get_artifact_repository(experiment.artifact_location)
                for path in sorted(_select(repository, traces)):
                    repository.delete_artifacts(path)
                    count += 1
        return count


def _select(repository: "ArtifactRepository", traces: Traces) -> set[str]:
    """Return the files, or folders of models, to delete."""
    selected, hashes = set(), [sha256.encode() for sha256 in traces.sha256s]
    for path in map(PurePosixPath, _walk(repository, "")):
        if path.parts[0] != MODELS:
            if path.suffix not in COPIED or traces.pattern.search(_read(repository, path)):
                selected.add(str(path))
        elif path.suffix in IMAGES_OF_INDEX:
            content = _read(repository, path)
            if any(sha256 in content for sha256 in hashes):
                selected.add("/".join(path.parts[:2]))
    return selected


def _walk(repository: "ArtifactRepository", folder: str) -> Iterator[str]:
    """Yield the paths of all files below a folder."""
    for item in repository.list_artifacts(folder or None):
        if item.is_dir:
            yield from _walk(repository, item.path)
        else:
            yield item.path


def _read(repository: "ArtifactRepository", path: PurePosixPath) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return Path(repository.download_artifacts(str(path), folder)).read_bytes()
