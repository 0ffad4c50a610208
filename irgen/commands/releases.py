"""``irgen releases``: list releases, or pull one from the bucket."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irgen.commands.format import format_bytes
from irgen.commands.options import json_option, params_option, root_option, settings_file
from irgen.commands.project_index import note_if_served_is_not_searched

if TYPE_CHECKING:
    from irgen.releases.release import Release


@click.command()
@click.argument("action", type=click.Choice(["list", "pull"]), default="list")
@click.argument("version", type=int, required=False)
@json_option
@params_option
@root_option
def releases(
    action: str, version: int | None, as_json: bool, params: Path | None, root: Path
) -> None:
    """List the releases, newest first, and mark the one that is served.

    With pull, first pull the bucket's champion (release.remote in params.yaml) and serve it. With a
    VERSION, pull that release; it is served only if nothing else is.
    """
    from irgen.releases import pull, settings, store

    folder = store.path_in(root)
    if action == "pull":
        chosen = settings.read_release(settings_file(root, params))
        pull.pull_release(folder, chosen, version)
    listed, champion = store.list_releases(folder), store.read_champion(folder)
    if as_json:
        print(json.dumps([as_record(release, champion) for release in listed], indent=2))
    elif listed:
        print(render_table(listed, champion))
    else:
        print(f"There is no release in {folder} yet: irgen release makes the first.")
    if action == "pull":
        note_if_served_is_not_searched(root)


def as_record(release: Release, champion: Release | None) -> dict[str, Any]:
    """Return a release as plain values, without its list of files."""
    record = asdict(release) | {"name": release.name, "champion": release == champion}
    record.pop("files")
    return record


def render_table(listed: list[Release], champion: Release | None) -> str:
    """Return a table with one row per release; an arrow marks the served one."""
    from irgen.evaluation.table_format import render_text

    rows = [
        [
            "→" if release == champion else "",
            str(release.version),
            release.state,
            str(release.revision),
            format_quality(release),
            format_bytes(release.size),
            "yes" if release.pushed else "no",
            release.registered or "no",
            release.name,
        ]
        for release in listed
    ]
    columns = [
        "",
        "release",
        "state",
        "data",
        "quality",
        "size",
        "in bucket",
        "in MLflow",
        "folder",
    ]
    return render_text(columns, rows, right=("release", "data", "quality", "size", "in MLflow"))


def format_quality(release: Release) -> str:
    """Format the metric by which the gate judged a release; a dash if it was not judged."""
    figures = (release.verdict or {}).get("figures") or {}
    metric = figures.get("metric")
    return f"{metric} {figures['candidate'][metric]:.3f}" if metric else "–"
