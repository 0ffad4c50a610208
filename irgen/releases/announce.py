"""Telling a bucket and MLflow of releases; what cannot be told now is told by the next release.

Each function gives back what went wrong, in a sentence each, and never stops a release. All of them
may be done again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irgen.errors import IrgenError
from irgen.params import Params
from irgen.params import Release as Settings
from irgen.releases import remote, store
from irgen.releases.release import Release
from irgen.tracking import provenance

Troubles = list[str]


def push(place: Path, one: Release, settings: Settings) -> tuple[Release, Troubles]:
    """Copies a release to the bucket, if there is one; the release with what is noted of it."""
    if not settings.remote:
        return one, []
    there = remote.place_of(settings.remote, one.name)
    with _told("the release is not in the bucket yet") as troubles:
        remote.push(remote.connect(settings.endpoint), place / one.name, one, there)
        one = store.note(place, one.but(pushed=there))
    return one, troubles


def register(root: Path, one: Release, params: Params) -> tuple[Release, Troubles]:
    """Makes the release a version of the registered model; it with what is noted of it."""
    if not params.release.model:
        return one, []
    from irgen.tracking import mlflow_store, registry

    home, place = provenance.project(root), store.folder(root)
    with _told("the release is not in the registry yet") as troubles, mlflow_store.alone(home):
        client = mlflow_store.connect(home)
        within = mlflow_store.experiment(client, home, params.tracking.experiment)
        version = registry.register(client, within, params.release, one, place / one.name)
        if one.state == "rejected":
            registry.name_candidate(client, params.release.model, version)
        key = provenance.store_key(home)
        one = store.note(place, one.but(registered=version, registry=key))
    return one, troubles


def tell_champion(root: Path, champion: Release, params: Params) -> Troubles:
    """Says in the bucket and in the registry which release is served, and in the bucket lets go of
    those that are not kept."""
    return _tell_bucket(champion, params.release) + _tell_registry(root, champion, params)


def _tell_bucket(champion: Release, settings: Settings) -> Troubles:
    if not (settings.remote and champion.pushed):
        return []
    with _told("the bucket does not know the champion yet") as troubles:
        client = remote.connect(settings.endpoint)
        remote.announce(client, settings.remote, champion)
        stay = {name for name in remote.names(client, settings.remote) if _is_kept(name, champion)}
        remote.prune(client, settings.remote, stay, settings.keep)
    return troubles


def _is_kept(name: str, champion: Release) -> bool:
    return int(name.partition("-")[0]) in (champion.version, champion.previous)


def _tell_registry(root: Path, champion: Release, params: Params) -> Troubles:
    if not (params.release.model and champion.registered):
        return []
    from irgen.tracking import mlflow_store, registry

    home = provenance.project(root)
    with _told("the registry does not know the champion yet") as troubles, mlflow_store.alone(home):
        client = mlflow_store.connect(home)
        registry.name_champion(client, params.release.model, champion.registered)
        within = mlflow_store.experiment(client, home, params.tracking.experiment)
        tags = provenance.standing(root)
        registry.tell_build(client, within, os.environ.get("IRGEN_BUILD", ""), tags)
    return troubles


def forget(root: Path, old: Release, params: Params) -> Troubles:
    """Deletes the version of a release that is to go, if this registry has one."""
    if not (params.release.model and old.registered):
        return []
    from irgen.tracking import mlflow_store, registry

    home = provenance.project(root)
    if old.registry != provenance.store_key(home):
        return []
    what = f"the registry still has a release that is to go ({old.version})"
    with _told(what) as troubles, mlflow_store.alone(home):
        registry.forget(mlflow_store.connect(home), params.release.model, old.bundle)
    return troubles


@contextmanager
def _told(what: str) -> Iterator[Troubles]:
    """Takes what the other side does wrong, and the reason it gives, into the list it gives."""
    troubles: Troubles = []
    try:
        yield troubles
    except IrgenError as error:
        troubles.append(f"{what}: {error}")
