"""``irgen releases``: what was released, which is served; and fetching one from the bucket."""

import json
from argparse import Namespace
from dataclasses import asdict
from typing import Any

from irgen.commands.wording import aligned, size
from irgen.params import Params, load
from irgen.releases import pull, store
from irgen.releases.release import Release


def run(options: Namespace) -> None:
    """Lists the releases, or fetches one first. Raises IrgenError if it cannot be fetched."""
    params = load(options.params or options.root / "params.yaml")
    place = store.folder(options.root)
    if options.action == "fetch":
        pull.fetch(place, params.release, options.version)
    there, served = store.all_releases(place), store.champion(place)
    if options.json:
        print(json.dumps([_plain(one, served) for one in there], indent=2))
    elif there:
        print(_table(there, served, params))
    else:
        print(f"There is no release in {place} yet: irgen release makes the first.")


def _plain(one: Release, served: Release | None) -> dict[str, Any]:
    about = asdict(one) | {"name": one.name, "champion": one == served}
    about.pop("files")
    return about


def _table(there: list[Release], served: Release | None, params: Params) -> str:
    metric = params.gate.metric
    rows = [
        [
            "→" if one == served else "",
            str(one.version),
            one.state,
            str(one.revision),
            _figure(one, metric),
            size(one.size),
            "yes" if one.pushed else "no",
            one.registered or "no",
            one.name,
        ]
        for one in there
    ]
    columns = ["", "release", "state", "data", metric, "size", "in bucket", "in MLflow", "folder"]
    return aligned(columns, rows, right=("release", "data", metric, "size", "in MLflow"))


def _figure(one: Release, metric: str) -> str:
    """The gate's metric of the release, when it was judged."""
    found = ((one.verdict or {}).get("figures") or {}).get("candidate") or {}
    return f"{found[metric]:.3f}" if metric in found else "–"
