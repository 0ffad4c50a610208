"""``irgen releases``: list the releases, or pull one from the bucket."""

import json
from argparse import Namespace
from dataclasses import asdict
from typing import Any

from irgen.commands.wording import aligned, size
from irgen.params import Params, load
from irgen.releases import pull, store
from irgen.releases.release import Release


def run(options: Namespace) -> None:
    """List the releases; pull one first if asked. Raise IrgenError if that fails."""
    params = load(options.params or options.root / "params.yaml")
    folder = store.path_in(options.root)
    if options.action == "pull":
        pull.pull_release(folder, params.release, options.version)
    releases, champion = store.list_releases(folder), store.read_champion(folder)
    if options.json:
        print(json.dumps([_to_json(each, champion) for each in releases], indent=2))
    elif releases:
        print(_format_table(releases, champion, params))
    else:
        print(f"There is no release in {folder} yet: irgen release makes the first.")


def _to_json(release: Release, champion: Release | None) -> dict[str, Any]:
    values = asdict(release) | {"name": release.name, "champion": release == champion}
    values.pop("files")
    return values


def _format_table(releases: list[Release], champion: Release | None, params: Params) -> str:
    metric = params.gate.metric
    rows = [
        [
            "→" if release == champion else "",
            str(release.version),
            release.state,
            str(release.revision),
            _format_metric(release, metric),
            size(release.size),
            "yes" if release.pushed else "no",
            release.registered or "no",
            release.name,
        ]
        for release in releases
    ]
    columns = ["", "release", "state", "data", metric, "size", "in bucket", "in MLflow", "folder"]
    return aligned(columns, rows, right=("release", "data", metric, "size", "in MLflow"))


def _format_metric(release: Release, metric: str) -> str:
    """Return the gate's metric of the release as it was judged."""
    values = ((release.verdict or {}).get("figures") or {}).get("candidate") or {}
    return f"{values[metric]:.3f}" if metric in values else "–"
