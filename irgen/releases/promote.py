"""From ``data/index`` to the index that is served: copied, judged, pushed, registered, made the
champion. Each step can be done again, so a release that was killed goes on with the next one.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irgen.checkpoints.identifiers import check_served
from irgen.evaluation import gate
from irgen.files import digest, file_digest
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.releases import announce, pull, release, store
from irgen.releases.release import Release
from irgen.tracking import provenance, recorder, run_log
from irgen.workspace import Workspace

KEPT = ("rejected", "withdrawn")  # states of what is not released by itself


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it: the ``release`` it is about, the ``champion`` that is served now (None: none
    is), whether it is ``new`` as such, and what could not be told to others yet."""

    release: Release
    champion: Release | None
    new: bool = False
    troubles: list[str] = field(default_factory=list)

    @property
    def is_served(self) -> bool:
        """Whether the release is the champion."""
        return self.champion is not None and self.champion.version == self.release.version

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        one, served = self.release, self.champion
        return {
            "version": one.version,
            "name": one.name,
            "bundle": one.bundle,
            "state": one.state,
            "revision": one.revision,
            "new": self.new,
            "champion": served and served.version,
            "previous": one.previous,
            "verdict": _verdict(one),
            "pushed": one.pushed,
            "registered": one.registered,
            "settled": not self.troubles,
            "troubles": self.troubles,
        }


def _verdict(one: Release) -> dict[str, Any]:
    verdict = one.verdict or {"passed": True, "why": "it was not judged here", "figures": {}}
    if one.state != "withdrawn":
        return verdict
    why = f"it was taken back by a rollback; irgen rollback {one.version} brings it back"
    return verdict | {"passed": False, "why": why}


def make(root: Path, params: Params, *, force: bool = False) -> Outcome:
    """Releases ``data/index`` if the gate lets it pass, or ``force``; else keeps it as a candidate.

    The same index is one release for ever: done again, only what is missing is done. An index that
    a rollback took back is not released again but by ``force`` or a rollback to it. Raises
    ArtifactError if there is no index, IndexingError if ``params`` ask for codes that cannot be
    served, ReleaseError if another release is under way for long or the index is changed meanwhile,
    SourceError if a first release cannot see what the bucket has.
    """
    check_served(params.identifiers.rule)
    place = store.folder(root)
    index = Workspace.at(root).existing("index")
    with store.alone(place):
        served = store.champion(place) or pull.adopt(place, params.release)
        one = _on_the_shelf(place, index, root)
        if served is not None and served.bundle == one.bundle:
            return serve(root, params, one, served, previous=one.previous)
        one = _judged(root, params, one, served, force=force)
        if one.state in KEPT:
            return _keep(root, params, one, served)
        return serve(root, params, one, served, previous=served.version if served else None)


def _on_the_shelf(place: Path, index: Path, root: Path) -> Release:
    """The release of this very index; a new one, copied, if there is none."""
    files = release.contents(index)
    bundle = release.bundle_digest(files)
    there = store.all_releases(place)
    for one in there:
        if one.bundle == bundle:
            return one
    tags = provenance.tags(root, "index")
    one = Release(
        version=1 + max((each.version for each in there), default=0),
        bundle=bundle,
        files=files,
        revision=provenance.data_revision(root),
        commit=tags.get("mlflow.source.git.commit", ""),
        build=os.environ.get("IRGEN_BUILD", ""),
        made=run_log.now(),
        metrics=recorder.quality(Workspace.at(root)),
    )
    store.put(place, one, lambda folder: store.copy(index, folder, files))
    return one


def _judged(
    root: Path, params: Params, one: Release, served: Release | None, *, force: bool
) -> Release:
    """The release with the gate's verdict: what was judged on the same grounds before is not judged
    again."""
    place = store.folder(root)
    if force:
        why = "released by force, whatever the gate says"
        verdict = {"passed": True, "why": why, "figures": (one.verdict or {}).get("figures", {})}
        return store.note(place, one.but(verdict=verdict, basis="force", state="candidate"))
    if one.state == "withdrawn":
        return one
    basis = _basis(root, params, served)
    if one.verdict is None or one.basis != basis:
        folder = None if served is None else place / served.name
        verdict = gate.compare(Workspace.at(root), params, folder).plain()
        one = one.but(verdict=verdict, basis=basis)
        one = store.note(place, one.but(state="candidate" if verdict["passed"] else "rejected"))
    return one


def _basis(root: Path, params: Params, served: Release | None) -> str:
    """What a verdict rests on, beside the index itself."""
    tables = Workspace.at(root).stage("catalog")
    asked = [file_digest(tables / f"{name}.parquet") for name in ("queries", "database")]
    cutoffs = list(params.evaluate.cutoffs)
    return digest(served and served.bundle, flatten(params.gate), cutoffs, asked)


def _keep(root: Path, params: Params, one: Release, served: Release | None) -> Outcome:
    """Leaves the champion where it is, and tells of the candidate."""
    troubles: list[str] = []
    if served is not None:
        served, troubles = _handed_on(root, params, served)
        troubles += announce.tell_champion(root, served, params)
    if not troubles:
        troubles = _catch_up(root, params, before=one)
        one, more = announce.register(root, one, params)
        troubles += more
    if served is not None:
        troubles += prune(root, params, served)
    return Outcome(release=one, champion=served, troubles=troubles)


def serve(
    root: Path, params: Params, one: Release, served: Release | None, *, previous: int | None
) -> Outcome:
    """Makes a release the champion in the place of the one that is ``served``, if it is not yet,
    and tells of it; ``previous`` is noted as the version it takes the place of. For who is alone
    with the shelf."""
    place = store.folder(root)
    new = served is None or served.version != one.version
    if new:  # noted first, so that the bucket's record has it, too
        one = store.note(place, one.but(previous=previous))
    one, troubles = _handed_on(root, params, one)
    if new:
        store.promote(place, one)
    if one.state != "released":
        one = store.note(place, one.but(state="released"))
    troubles += announce.tell_champion(root, one, params)
    troubles += prune(root, params, one)
    return Outcome(release=one, champion=one, new=new, troubles=troubles)


def _handed_on(root: Path, params: Params, one: Release) -> tuple[Release, list[str]]:
    """The release, pushed and registered as far as bucket and registry answer; what went wrong."""
    one, troubles = announce.push(store.folder(root), one, params.release)
    if late := _catch_up(root, params, before=one):
        return one, troubles + late
    one, more = announce.register(root, one, params)
    return one, troubles + more


def _catch_up(root: Path, params: Params, before: Release) -> list[str]:
    """Registers earlier releases that could not be registered when they were judged, the oldest
    first, so that the registry counts as the shelf does."""
    for one in reversed(store.all_releases(store.folder(root))):
        late = one.version < before.version and one.state != "candidate" and not one.registered
        if late and params.release.model:
            _, troubles = announce.register(root, one, params)
            if troubles:
                return troubles
    return []


def prune(root: Path, params: Params, served: Release) -> list[str]:
    """Takes off the shelf, and out of the registry, what is not kept; what the registry cannot
    forget now stays until the next release, and why is given back. For who is alone with it."""
    place, troubles = store.folder(root), list[str]()
    for old in store.to_prune(store.all_releases(place), served, params.release.keep):
        if late := announce.forget(root, old, params):
            troubles += late
        else:
            store.drop(place, old)
    return troubles
