"""``irgen release``: the index that the pipeline made becomes the one that is served, if it may."""

import json
import sys
from argparse import Namespace

from irgen.params import load
from irgen.releases import promote
from irgen.releases.promote import Outcome

KEPT = 3  # exit status: the gate, or a rollback, keeps the index back


def run(options: Namespace) -> int:
    """Releases ``data/index`` and says what came of it; 0 if it is served now, newly so or already,
    3 if it is kept as a candidate. Raises IrgenError if neither can be done."""
    params = load(options.params or options.root / "params.yaml")
    outcome = promote.make(options.root, params, force=options.force)
    tell(outcome, words(outcome), options)
    return 0 if outcome.is_served else KEPT


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
