"""Keep an index back that is much smaller than the served one, although nobody accepted removals.

The guard of the download stage compares with the last manifest. If that was deleted while the
source lacked images, only the served release still tells that there were more.
"""

from dataclasses import replace
from pathlib import Path

from irgen.catalog import manifest
from irgen.catalog.removals import FEWEST
from irgen.evaluation.answer_cache import read_ids
from irgen.evaluation.gate import Verdict
from irgen.files.workspace import Workspace
from irgen.releases.release import Release


def judge_size(
    verdict: Verdict, workspace: Workspace, served: Path, champion: Release, share: float
) -> Verdict:
    """Return the verdict on ``data/index``; failed if it holds fewer images than the champion, in
    the folder ``served``, by more than ``share`` and at least FEWEST. An index of a later revision
    at which a person accepted removals may be small, and so may one of another catalogue, which has
    no image in common."""
    if manifest.read_accepted(workspace.stage("download")) > champion.revision:
        return verdict
    before, after = set(read_ids(served)), set(read_ids(workspace.existing("index")))
    missing = len(before) - len(after)
    if missing < FEWEST or missing <= share * len(before) or before.isdisjoint(after):
        return verdict
    why = (
        f"the index holds {len(after):,} images and the served one {len(before):,}; nobody "
        f"accepted that more are gone than download.most_removed ({share:g}) allows; if the source "
        "was away, bring it back and run dvc repro; if they should go: irgen release --force"
    )
    return replace(verdict, passed=False, why=why)
