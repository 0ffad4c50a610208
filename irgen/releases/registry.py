"""MLflow's model registry: one model version for each release, and aliases for two of them."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from irgen.params import Release as Settings
from irgen.releases import store
from irgen.releases.release import Release
from irgen.releases.settings import ReleaseSettings
from irgen.tracking import locations, mlflow_store, provenance, runs, uploads
from irgen.tracking.descriptions import describe_result
from irgen.tracking.mlflow_store import quote

if TYPE_CHECKING:
    from irgen.tracking.mlflow_store import LoggedModel, MlflowClient

CHAMPION, CANDIDATE = "champion", "candidate"  # aliases; candidate: what the gate rejected last
BUNDLE, NAME = "irgen.bundle", "irgen.release"  # tags of runs, models and versions
MODEL_NOTE = """Indexes to search images by image. *champion* is the release that is served,
*candidate* the last one that the gate kept back.

Input: a column `image` with image files in base64; parameter `k`. Output: `ids` and `scores`.

Serve it: `mlflow models serve -m models:/{name}@champion --env-manager local`."""
MODEL_CODE = Path(__file__).with_name("model_code.py")


def register_releases(
    root: Path, settings: ReleaseSettings, champion: Release | None, judged: Release
) -> tuple[Release | None, Release]:
    """Bring the registry up to date: a version for each release, oldest first, and the aliases; tag
    the build's run with the champion.

    Return ``champion`` and ``judged`` with their versions in the registry. Releases that could not
    be registered before are registered now. Without a model name in ``settings`` do nothing. Raise
    TrackingError if MLflow does not answer.
    """
    if not settings.release.model:
        return champion, judged
    releases, key = store.path_in(root), locations.store_key(root)
    with mlflow_store.open_client(root) as client:
        target = runs.Target(client, root, settings.experiment)
        if champion and champion.registry == key:  # first: what comes now can fail
            _set_alias(client, settings.release.model, CHAMPION, champion.registered)
        current = {release.version for release in (champion, judged) if release}
        for release in reversed(store.list_releases(releases)):
            is_late = release.state != "candidate" and not release.registered
            if is_late or release.version in current:
                version = register(target, settings.release, release, releases)
                release = store.update(releases, release, registered=version, registry=key)
            champion = release if champion and release.version == champion.version else champion
            judged = release if release.version == judged.version else judged
        set_aliases(client, settings.release.model, champion, judged)
        build = runs.find_build(target, os.environ.get("IRGEN_BUILD", ""))
        if champion and build:
            mlflow_store.set_tags(client, build.info.run_id, provenance.read_build_tags(root))
    return champion, judged


def register(target: runs.Target, settings: Settings, release: Release, releases: Path) -> str:
    """Return the model version of a release, whose description follows the verdict. Create it, with
    the index or a pointer to it, unless the registry has this index already.

    Can be interrupted and repeated: run, logged model and version are looked up before they are
    created.
    """
    client, experiment = target.client, target.experiment(locations.RELEASES)
    version = _find_version(client, settings.model, release.bundle)
    if version is not None:
        if client.get_model_version(settings.model, version).description != _describe(release):
            client.update_model_version(settings.model, version, _describe(release))
        return version
    run = _find_or_create_run(target, release)
    model = _find_or_create_model(client, experiment, run, release)
    uploads.log_metrics(
        client, run, release.metrics, time=release.created, step=0, model=model.model_id
    )
    if str(model.status) != "READY":
        _upload_model(client, model, run, settings, release, releases / release.name)
        client.finalize_logged_model(model.model_id, "READY")
    if not client.search_registered_models(f"name = '{quote(settings.model)}'"):
        client.create_registered_model(
            settings.model, description=MODEL_NOTE.format(name=settings.model)
        )
    created = client.create_model_version(
        settings.model,
        model.artifact_location,  # MLflow looks a model id up in the default store, not in ours
        run_id=run,
        tags=_tags(release),
        description=_describe(release),
        model_id=model.model_id,
    )
    return str(created.version)


def set_aliases(
    client: "MlflowClient", model: str, champion: Release | None, judged: Release
) -> None:
    """Set the aliases: *champion* is the served version, *candidate* the one just rejected."""
    if champion:
        _set_alias(client, model, CHAMPION, champion.registered)
        if _read_aliases(client, model).get(CANDIDATE) == champion.registered:
            client.delete_registered_model_alias(model, CANDIDATE)
    if judged.state == "rejected":
        _set_alias(client, model, CANDIDATE, judged.registered)


def forget_release(
    root: Path, settings: Settings, old: Release, *, with_alias: bool = False
) -> None:
    """Delete the version of a release, one that has an alias only ``with_alias``, and mark its
    files as deleted (``mlflow gc`` frees them). Do nothing if this registry never had it. Raise
    TrackingError."""
    if not settings.model or old.registry != locations.store_key(root):
        return
    with mlflow_store.open_client(root) as client:
        delete_version(client, settings.model, old.bundle, with_alias=with_alias)


def delete_version(
    client: "MlflowClient", model: str, bundle: str, *, with_alias: bool = False
) -> None:
    """Delete the version of an index; one that has an alias only ``with_alias``."""
    version = _find_version(client, model, bundle)
    has_alias = version in _read_aliases(client, model).values() if version else False
    if version is None or (has_alias and not with_alias):
        return
    model_id = client.get_model_version(model, version).model_id
    client.delete_model_version(model, version)
    if model_id:
        client.delete_logged_model(model_id)


def _set_alias(client: "MlflowClient", model: str, alias: str, version: str) -> None:
    if _read_aliases(client, model).get(alias) != version:
        client.set_registered_model_alias(model, alias, version)


def _read_aliases(client: "MlflowClient", model: str) -> dict[str, str]:
    aliases = client.get_registered_model(model).aliases
    return {alias: str(version) for alias, version in aliases.items()}


def _find_version(client: "MlflowClient", model: str, bundle: str) -> str | None:
    """Return the oldest version of an index."""
    conditions = f"name = '{quote(model)}' and tags.`{BUNDLE}` = '{quote(bundle)}'"
    versions = client.search_model_versions(conditions)
    return min((str(match.version) for match in versions), key=int, default=None)


def _find_or_create_run(target: runs.Target, release: Release) -> str:
    """Return the id of the release's run, which is below the run of its build if there is one."""
    client, experiment = target.client, target.experiment(locations.RELEASES)
    run = mlflow_store.find_run(client, experiment, {NAME: release.name})
    if run is not None:
        return run.info.run_id
    tags = _tags(release) | {
        "mlflow.runName": f"release {release.version}",
        "mlflow.note.content": _describe(release),
        "irgen.build": release.build,
    }
    build = runs.find_build(target, release.build)
    tags |= {} if build is None else {"mlflow.parentRunId": build.info.run_id}
    tags |= mlflow_store.source_tags("irgen release")
    created = client.create_run(experiment, start_time=release.created, tags=tags).info.run_id
    client.log_dict(created, release.verdict or {}, "verdict.json")
    client.set_terminated(created, "FINISHED")
    return created


def _find_or_create_model(
    client: "MlflowClient", experiment: str, run: str, release: Release
) -> "LoggedModel":
    conditions = f"tags.`{BUNDLE}` = '{quote(release.bundle)}'"
    models = list(client.search_logged_models([experiment], conditions, max_results=10))
    complete = [model for model in models if str(model.status) == "READY"]
    if models:
        return (complete or models)[0]
    name = f"release-{release.name}"
    return client.create_logged_model(experiment, name=name, source_run_id=run, tags=_tags(release))


def _tags(release: Release) -> dict[str, str]:
    tags = {BUNDLE: release.bundle, NAME: release.name}
    tags |= {"irgen.data_revision": str(release.revision)}
    return tags | ({"mlflow.source.git.commit": release.commit} if release.commit else {})


def _describe(release: Release) -> str:
    """Return the text that MLflow shows beside the version."""
    why = (release.verdict or {}).get("why", "not judged")
    text = f"Release {release.name} of data revision {release.revision}. The gate: {why}."
    return "\n\n".join(filter(None, [text, describe_result(release.metrics)]))


def _upload_model(
    client: "MlflowClient",
    model: "LoggedModel",
    run: str,
    settings: Settings,
    release: Release,
    folder: Path,
) -> None:
    from irgen.tracking.served import save_model  # loads MLflow's models, which takes a second

    work = folder.with_name(f".{release.name}.model.tmp")  # on the disk that has room for an index
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        artifacts = _write_artifacts(settings, release, folder, work)
        save_model(work / "model", MODEL_CODE, model, run, artifacts)
        client.log_model_artifacts(model.model_id, str(work / "model"))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_artifacts(
    settings: Settings, release: Release, folder: Path, work: Path
) -> dict[str, str]:
    """Return what is stored with the model: the index, or a pointer to it if it is too large."""
    if release.size <= settings.max_model_megabytes * 1_000_000:
        return {"index": str(folder.resolve())}
    pointer = {
        "path": str(folder.resolve()),
        "url": release.pushed,
        "endpoint": settings.endpoint,
        "bundle": release.bundle,
    }
    (work / "pointer.json").write_text(json.dumps(pointer, indent=2))
    return {"pointer": str(work / "pointer.json")}
