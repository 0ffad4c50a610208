"""``irgen release``: the index that the pipeline made becomes the one that is served, if it may."""

import json
import sys
from argparse import Namespace

from irgen.params import load
from irgen.releases import promote
from irgen.releases.promote import Outcome

POLL_SECONDS = 0.02
KEPT = 3  # exit status: the gate, or a rollback, keeps the index back


def run(options: Namespace) -> int:
    """Release ``data/index`` if it passes the gate and print the outcome; return 0 if it is served
    now, 3 if it is kept as a candidate. Raise IrgenError if neither can be done."""
    params = load(options.params or options.root / "params.yaml")
    outcome = promote.release_index(options.root, params, force=options.force)
    print_outcome(outcome, format_outcome(outcome), options)
    return 0 if outcome.is_served else KEPT


def print_outcome(outcome: Outcome, sentence: str, options: Namespace) -> None:
    """Print the outcome as ``sentence`` or as JSON, and errors of bucket and MLflow on stderr."""
    for error in outcome.errors:
        print(f"irgen {options.name}: {error}; the next irgen release repeats it", file=sys.stderr)
    print(json.dumps(outcome.to_json()) if options.json else sentence)


def format_outcome(outcome: Outcome) -> str:
    """Return the outcome of a release in a sentence."""
    version, champion = outcome.release.version, outcome.champion
    why = outcome.to_json()["verdict"]["why"]
    if not outcome.is_served:
        served = f"release {champion.version} is served" if champion else "none is served"
        return f"Release {version} is kept as a candidate, {served}: {why}"
    if outcome.new:
        return f"Release {version} is served now: {why}"
    return f"Release {version} is served already."
