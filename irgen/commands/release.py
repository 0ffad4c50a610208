"""``irgen release``: the index that the pipeline made becomes the one that is served, if it may."""

import json
import sys
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from irgen.errors import TrackingError
from irgen.params import load
from irgen.releases import promote
from irgen.releases.promote import Outcome
from irgen.tracking import provenance

POLL_SECONDS = 0.02
KEPT = 3  # exit status: the gate, or a rollback, keeps the index back


def run(options: Namespace) -> int:
    """Releases ``data/index`` and says what came of it; 0 if it is served now, newly so or already,
    3 if it is kept as a candidate. Raises IrgenError if neither can be done."""
    if options.after is not None and not _called(options.root, options.after):
        return 0
    params = load(options.params or options.root / "params.yaml")
    outcome = promote.make(options.root, params, force=options.force)
    tell(outcome, words(outcome), options)
    return 0 if outcome.is_served else KEPT


def _called(root: Path, word: Path) -> bool:
    """Loads MLflow, which takes seconds, and waits for the file ``word``; False if its folder has
    gone, for then nobody will write it."""
    from irgen.tracking import mlflow_store, registry

    home = provenance.project(root)
    with suppress(TrackingError):  # told when it matters
        mlflow_store.load(home)
        with mlflow_store.alone(home):
            mlflow_store.connect(home)
        registry.rehearse()
    while not word.exists():
        if not word.parent.is_dir():
            return False
        time.sleep(POLL_SECONDS)
    return True


def tell(outcome: Outcome, sentence: str, options: Namespace) -> None:
    """Prints what came of a release, in a ``sentence`` or as JSON, and on stderr what others could
    not be told yet."""
    for trouble in outcome.troubles:
        print(
            f"irgen {options.name}: {trouble}; irgen release does the rest later", file=sys.stderr
        )
    print(json.dumps(outcome.plain()) if options.json else sentence)


def words(outcome: Outcome) -> str:
    """What came of it, in a sentence."""
    one, about = outcome.release, outcome.plain()
    why = about["verdict"]["why"]
    if not outcome.is_served:
        served = outcome.champion
        stays = f"release {served.version} is served" if served else "none is served"
        return f"Release {one.version} is kept as a candidate, {stays}: {why}"
    if outcome.new:
        return f"Release {one.version} is served now: {why}"
    return f"Release {one.version} is served already."
