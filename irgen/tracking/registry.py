"""The registry: one model version a release, and aliases that say which is served."""

import json
import shutil
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import irgen
from irgen.errors import TrackingError
from irgen.params import Release as Settings
from irgen.releases.release import Release
from irgen.tracking import run_log
from irgen.tracking.mlflow_store import find_run, metric_name, plain, source_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

CHAMPION, CANDIDATE = "champion", "candidate"
BUNDLE = "irgen.bundle"
RELEASED = "irgen.release"
SERVED = Path(__file__).with_name("served.py")
# What a machine needs to serve the model, beside the package, which goes with it.
NEEDED = (
    *("mlflow", "boto3", "numpy", "pandas", "pillow", "polars", "pyyaml", "safetensors", "timm"),
    *("torch", "torchvision", "tqdm"),
)
# A grey square of 8 × 8 pixels, as a PNG in base64.
EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR4nGNsYIAAJgaKGAAmCACQXTClHgAAAABJ"
    "RU5ErkJggg=="
)


def register(
    client: "MlflowClient", within: str, settings: Settings, one: Release, folder: Path
) -> str:
    """The release's version in the registry; made, with the index in ``folder`` or a pointer to it,
    unless there is one of the same index already.

    ``within``: the id of the experiment that its run is in. May be broken off anywhere and be done
    again: run, logged model and version are looked for before they are made.
    """
    known = _version(client, settings.model, one.bundle)
    if known is not None:
        return known
    run = _run(client, within, one)
    model = _logged_model(client, within, run, one)
    if str(model.status) != "READY":
        _log_files(client, model, run, settings, one, folder)
        client.finalize_logged_model(model.model_id, "READY")
    if not client.search_registered_models(f"name = '{plain(settings.model)}'"):
        client.create_registered_model(settings.model)
    made = client.create_model_version(
        settings.model,
        model.artifact_location,  # by its id it would be looked for in the default store
        run_id=run,
        tags=_tags(one),
        description=_words(one),
        model_id=model.model_id,
    )
    return str(made.version)


def name_champion(client: "MlflowClient", model: str, version: str) -> None:
    """Moves the alias ``champion`` to a version, if it is not there."""
    _point(client, model, CHAMPION, version)
    if _aliases(client, model).get(CANDIDATE) == version:
        client.delete_registered_model_alias(model, CANDIDATE)


def name_candidate(client: "MlflowClient", model: str, version: str) -> None:
    """Moves the alias ``candidate``, of the latest version that the gate kept back."""
    _point(client, model, CANDIDATE, version)


def forget(client: "MlflowClient", model: str, bundle: str) -> None:
    """Deletes the version of an index, unless an alias names it, and marks its files as deleted;
    ``mlflow gc`` frees them."""
    version = _version(client, model, bundle)
    if version is None or version in _aliases(client, model).values():
        return
    logged = client.get_model_version(model, version).model_id
    client.delete_model_version(model, version)
    if logged:
        client.delete_logged_model(logged)


def tell_build(client: "MlflowClient", within: str, build: str, tags: dict[str, str]) -> None:
    """Sets tags on the run of a build, if it has one."""
    found = find_run(client, within, {"irgen.parent_of": run_log.plain(build)}) if build else None
    if found is not None:
        for tag, value in tags.items():
            client.set_tag(found.info.run_id, tag, value)


def _point(client: "MlflowClient", model: str, alias: str, version: str) -> None:
    if _aliases(client, model).get(alias) != version:
        client.set_registered_model_alias(model, alias, version)


def _aliases(client: "MlflowClient", model: str) -> dict[str, str]:
    return {name: str(at) for name, at in client.get_registered_model(model).aliases.items()}


def _version(client: "MlflowClient", model: str, bundle: str) -> str | None:
    wanted = f"name = '{plain(model)}' and tags.`{BUNDLE}` = '{plain(bundle)}'"
    found = client.search_model_versions(wanted)
    return min((str(each.version) for each in found), key=int, default=None)


def _run(client: "MlflowClient", within: str, one: Release) -> str:
    """The run that stands for the release, a child of its build's if there is one."""
    from mlflow.entities import Metric

    found = find_run(client, within, {RELEASED: one.name})
    if found is not None:
        return found.info.run_id
    build = find_run(client, within, {"irgen.parent_of": run_log.plain(one.build)})
    tags = _tags(one) | {"mlflow.runName": f"release {one.version}"} | source_tags("irgen release")
    tags |= {"mlflow.note.content": _words(one), "irgen.build": one.build}
    tags |= {} if build is None else {"mlflow.parentRunId": build.info.run_id}
    run = client.create_run(within, start_time=one.made, tags=tags).info.run_id
    metrics = [Metric(metric_name(name), each, one.made, 0) for name, each in one.metrics.items()]
    client.log_batch(run, metrics=metrics[:1000])
    client.log_dict(run, one.verdict or {}, "verdict.json")
    client.set_terminated(run, "FINISHED")
    return run


def _logged_model(client: "MlflowClient", within: str, run: str, one: Release) -> "LoggedModel":
    wanted = f"tags.`{BUNDLE}` = '{plain(one.bundle)}'"
    found = client.search_logged_models([within], wanted, max_results=10)
    whole = [model for model in found if str(model.status) == "READY"]
    if whole or found:
        return (whole or list(found))[0]
    return client.create_logged_model(
        within, name=f"release-{one.name}", source_run_id=run, tags=_tags(one)
    )


def _tags(one: Release) -> dict[str, str]:
    tags = {BUNDLE: one.bundle, RELEASED: one.name, "irgen.data_revision": str(one.revision)}
    return tags | ({"mlflow.source.git.commit": one.commit} if one.commit else {})


def _words(one: Release) -> str:
    """What a person reads beside the version."""
    why = (one.verdict or {}).get("why", "not judged")
    return f"Release {one.name} of data revision {one.revision}. The gate: {why}."


def _log_files(
    client: "MlflowClient",
    model: "LoggedModel",
    run: str,
    settings: Settings,
    one: Release,
    folder: Path,
) -> None:
    work = folder.with_name(f".{one.name}.model.tmp")  # on the disk that holds the index anyway
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        save(work / "model", model, run, _artifacts(settings, one, folder, work))
        client.log_model_artifacts(model.model_id, str(work / "model"))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _artifacts(settings: Settings, one: Release, folder: Path, work: Path) -> dict[str, str]:
    """What goes with the model: the index, or if it is too large where it is."""
    if one.size <= settings.max_model_megabytes * 1_000_000:
        return {"index": str(folder.resolve())}
    pointer = {
        "path": str(folder.resolve()),
        "url": one.pushed,
        "endpoint": settings.endpoint,
        "bundle": one.bundle,
    }
    (work / "pointer.json").write_text(json.dumps(pointer, indent=2))
    return {"pointer": str(work / "pointer.json")}


def save(place: Path, model: "LoggedModel", run: str, artifacts: dict[str, str]) -> None:
    """Writes the model into the new folder ``place`` as MLflow loads it: the code of
    ``irgen.tracking.served`` with the package, its signature and an example."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    about = Model(
        artifact_path=model.artifact_location,
        run_id=run,
        model_uuid=model.model_id,
        model_id=model.model_id,
    )
    save_model(
        str(place),
        python_model=str(SERVED),
        code_paths=[str(Path(irgen.__file__).parent)],
        artifacts=artifacts,
        signature=signature(),
        input_example=_example(),
        pip_requirements=_pinned(),
        mlflow_model=about,
    )
    for left in place.rglob("__pycache__"):
        shutil.rmtree(left, ignore_errors=True)


def rehearse() -> None:
    """Saves a model that is thrown away: the first time that MLflow saves one in a process it looks
    at every package that is installed, which takes seconds. Raises TrackingError if it cannot."""
    from mlflow.pyfunc import save_model

    try:
        with tempfile.TemporaryDirectory(prefix="irgen-") as folder:
            save_model(
                str(Path(folder) / "model"),
                python_model=str(SERVED),
                signature=signature(),
                input_example=_example(),
                pip_requirements=_pinned(),
            )
    except Exception as error:  # whatever ails it will ail the release, and is told by that
        raise TrackingError(f"no model can be saved: {error}") from error


def _example() -> Any:
    import pandas as pd

    return pd.DataFrame({"image": [EXAMPLE]}), {"k": 10}


def _pinned() -> list[str]:
    return [f"{name}=={installed(name).partition('+')[0]}" for name in NEEDED]


def signature() -> Any:
    """What the model takes – base64 images, and how many to find – and what it gives: for each
    their ids and scores."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "image")]),
        outputs=Schema(
            [ColSpec(Array(DataType.string), "ids"), ColSpec(Array(DataType.double), "scores")]
        ),
        params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
    )
