"""``irgen rollback``: an earlier release is served again."""

from argparse import Namespace

from irgen.commands import release
from irgen.params import load
from irgen.releases import rollback


def run(options: Namespace) -> None:
    """Makes a release the champion and says so. Raises ReleaseError if it is not here."""
    params = load(options.params or options.root / "params.yaml")
    outcome = rollback.roll_back(options.root, params, options.version)
    now = "now" if outcome.new else "already"
    release.tell(outcome, f"Release {outcome.release.version} is served {now}.", options)
