"""Make ``data/index`` the served index: copy, judge, promote, push, register, prune.

Each step can be repeated, so the next release finishes one that was killed. Bucket and MLflow come
after the promotion: if one is down, the index is served all the same and sent by the next release.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from irgen.catalog import manifest
from irgen.checkpoints.identifiers import check_served
from irgen.errors import IrgenError
from irgen.evaluation import gate
from irgen.files.digests import digest, file_digest
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.params import Release as Settings
from irgen.params.strict import flatten
from irgen.releases import level, live, pull, registry, release, remote, settings, store
from irgen.releases.release import Release
from irgen.releases.settings import ReadSettings
from irgen.releases.shrinkage import judge_size
from irgen.tracking import provenance, stage_facts

KEPT = ("rejected", "withdrawn")  # states of releases that are not promoted


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a release or a rollback: its ``release``; the ``champion`` that is served now, or
    None; whether the champion is ``new``; and ``errors`` of bucket and MLflow. The next release
    repeats what failed."""

    release: Release
    champion: Release | None
    new: bool = False
    errors: list[str] = field(default_factory=list)

    @property
    def is_served(self) -> bool:
        """Tell whether the release is the champion."""
        return self.champion is not None and self.champion.version == self.release.version

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "version": self.release.version,
            "name": self.release.name,
            "bundle": self.release.bundle,
            "state": self.release.state,
            "revision": self.release.revision,
            "new": self.new,
            "champion": self.champion and self.champion.version,
            "previous": self.release.previous,
            "verdict": _explain(self.release),
            "pushed": self.release.pushed,
            "registered": self.release.registered,
            "settled": not self.errors,
            "errors": self.errors,
        }


def _explain(judged: Release) -> dict[str, Any]:
    verdict = judged.verdict or {"passed": True, "why": "it was not judged here", "figures": {}}
    if judged.state != "withdrawn":
        return verdict
    why = f"a rollback withdrew it; irgen rollback {judged.version} brings it back"
    return verdict | {"passed": False, "why": why}


def release_index(root: Path, params: Params, *, force: bool = False) -> Outcome:
    """Release ``data/index`` if it passes the gate, or with ``force``; else keep it as a candidate.

    The same index is always the same release: a repetition does only what is missing. Raise
    ArtifactError if there is no index, IndexingError if ``params`` ask for codes that cannot be
    served, ReleaseError if another release takes too long or the index changes meanwhile,
    SourceError if a first release cannot ask the bucket for its champion.
    """
    check_served(params.identifiers.rule)
    chosen = settings.select(params)
    index, releases = Workspace.at(root).existing("index"), store.path_in(root)
    with store.lock(releases):
        champion = store.read_champion(releases)
        champion = champion or pull.pull_first_champion(releases, params.release)
        candidate = copy_index(root, index)
        if champion is not None and champion.bundle == candidate.bundle:
            return promote(root, lambda: chosen, champion, champion, previous=champion.previous)
        candidate = judge(root, params, candidate, champion, force=force)
        if candidate.state in KEPT:
            return push_and_register(root, lambda: chosen, champion, candidate)
        previous = champion.version if champion else None
        return promote(root, lambda: chosen, candidate, champion, previous=previous)


def copy_index(root: Path, index: Path) -> Release:
    """Return the release of this index. If there is none, copy the index to the release store."""
    releases, files = store.path_in(root), release.list_files(index)
    bundle = release.digest_files(files)
    existing = store.list_releases(releases)
    for candidate in existing:
        if candidate.bundle == bundle:
            return candidate
    new = Release(
        version=1 + max((listed.version for listed in existing), default=0),
        bundle=bundle,
        files=files,
        revision=provenance.data_revision(root),
        commit=provenance.read_commit(root) or "",
        build=os.environ.get("IRGEN_BUILD", ""),
        created=time.time_ns() // 1_000_000,
        metrics=stage_facts.read_key_metrics(Workspace.at(root)),
    )
    store.add_release(releases, new, lambda folder: store.copy_files(index, folder, files))
    return new


def judge(
    root: Path, params: Params, candidate: Release, champion: Release | None, *, force: bool
) -> Release:
    """Ask the gate; return the candidate with its verdict. A verdict is kept until something that
    it depends on changes. With ``force`` the candidate passes. A withdrawn one is not judged."""
    releases = store.path_in(root)
    if force:
        figures = (candidate.verdict or {}).get("figures", {})
        verdict = {"passed": True, "why": "released by force, whatever the gate says"}
        verdict |= {"figures": figures}
        return store.update(releases, candidate, verdict=verdict, basis="force", state="candidate")
    if candidate.state == "withdrawn":
        return candidate
    best = None if champion is None else level.find_best(store.list_releases(releases), champion)
    sums = live.read(root, Workspace.at(root).existing("index"))
    basis = _digest_basis(root, params, champion, best, sums)
    if candidate.verdict is not None and candidate.basis == basis:
        return candidate
    folders = [None if other is None else releases / other.name for other in (champion, best)]
    judged = gate.compare(Workspace.at(root), params, *folders)
    if champion is not None:
        folder, share = releases / champion.name, params.download.most_removed
        judged = judge_size(judged, Workspace.at(root), folder, champion, share)
    judged = live.judge_live(judged, sums)
    judged.figures["level"] = level.compute_level(judged.figures, champion)
    state = "candidate" if judged.passed else "rejected"
    return store.update(releases, candidate, verdict=judged.to_json(), basis=basis, state=state)


def _digest_basis(
    root: Path, params: Params, champion: Release | None, best: Release | None, sums: live.Sums
) -> str:
    """Return a digest of all that a verdict depends on beside the candidate."""
    workspace = Workspace.at(root)
    hashes = [file_digest(path) for path in gate.list_inputs(workspace, params)]
    removals = [params.download.most_removed, manifest.read_accepted(workspace.stage("download"))]
    cutoffs = list(params.evaluate.cutoffs)
    bundles = [served and served.bundle for served in (champion, best)]
    return digest(*bundles, flatten(params.gate), *removals, cutoffs, hashes, asdict(sums))


def promote(
    root: Path,
    read_settings: ReadSettings,
    new: Release,
    old: Release | None,
    *,
    previous: int | None,
) -> Outcome:
    """Serve ``new`` in place of the champion ``old``, then bring bucket and MLflow up to date.

    ``previous``: the version that a later rollback goes back to. ``read_settings``: as for
    ``push_and_register``. The caller holds the store's lock.
    """
    releases = store.path_in(root)
    is_new = old is None or old.version != new.version
    new = store.update(releases, new, previous=previous)
    if is_new:
        store.set_champion(releases, new)
    new = store.update(releases, new, state="released")
    return push_and_register(root, read_settings, new, new, is_new=is_new)


def push_and_register(
    root: Path,
    read_settings: ReadSettings,
    champion: Release | None,
    judged: Release,
    *,
    is_new: bool = False,
) -> Outcome:
    """Push the champion to the bucket, register releases in MLflow, delete old releases.
    ``read_settings`` returns the settings for that. Errors are part of the outcome, wrong settings
    too. The caller holds the store's lock."""
    errors = list[str]()
    with _collect(errors, "bucket and MLflow are not up to date"):
        chosen, releases = read_settings(), store.path_in(root)
        if champion is not None:
            with _collect(errors, "the bucket is not up to date"):
                pushed = remote.push_champion(chosen.release, releases, champion)
                judged = pushed if judged.version == champion.version else judged
                champion = pushed
        with _collect(errors, "the model registry is not up to date"):
            champion, judged = registry.register_releases(root, chosen, champion, judged)
        if champion is not None:
            errors += prune(root, chosen.release, champion)
    return Outcome(release=judged, champion=champion, new=is_new, errors=errors)


def prune(root: Path, chosen: Settings, champion: Release) -> list[str]:
    """Delete old releases here and in the registry; return errors. A release that cannot be deleted
    from the registry stays until the next time."""
    releases, errors = store.path_in(root), list[str]()
    for old in store.select_to_prune(store.list_releases(releases), champion, chosen.keep):
        with _collect(errors, f"the model registry still has the old release {old.version}"):
            registry.forget_release(root, chosen, old)
            store.delete_release(releases, old)
    return errors


@contextmanager
def _collect(errors: list[str], problem: str) -> Iterator[None]:
    """Append an error of the block to ``errors`` instead of raising it."""
    try:
        yield
    except IrgenError as error:
        errors.append(f"{problem}: {error}")
