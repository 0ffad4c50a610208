"""``irgen info``: describe the index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands import project_index
from irgen.commands.format import format_bytes, format_count, format_percent
from irgen.commands.options import json_option, read_index_option, root_option
from irgen.releases import own_index

if TYPE_CHECKING:
    from irgen.index.index import Index


@click.command()
@click.option("--verify", is_flag=True, help="Read every file and compare it with its checksum.")
@json_option
@read_index_option
@root_option
def info(verify: bool, as_json: bool, folder: Path | None, root: Path) -> None:
    """Describe the index: its images, search defaults, calibration of probabilities, and size on
    disk; and whether a newer one is served."""
    from irgen.index.metadata import as_plain

    with project_index.open_to_read(root, folder, warn=False) as index:
        if verify:
            index.verify()
        outdated = own_index.is_outdated(index, root)
        if as_json:
            facts = index.info() | {"outdated": outdated, "verified": verify}
            print(json.dumps(as_plain(facts | {"edits": count_edits(index)}), indent=2))
            return
        lines = describe_index(index) | describe_origin(index, root, outdated)
    if verify:
        lines["verified"] = "every file is as it was written"
    width = max(map(len, lines))
    print("\n".join(f"{name:<{width}}  {text}" for name, text in lines.items()))


def describe_index(index: Index) -> dict[str, str]:
    """Describe an index, line by line."""
    from irgen.search.calibration import NO_LABELS

    facts, defaults = index.info(), index.options(1)
    sizes, dead = facts["bytes"], facts["dead_rows"]
    queries = facts["config"].get("queries", 0)
    return {
        "index": facts["folder"],
        "images": f"{facts['images']:,} can be found"
        + (f"; {queries:,} of them measure quality and are not trained on" if queries else ""),
        "trained on": format_count(facts["trained"], "image"),
        "since compacted": f"{format_count(facts['added'], 'image')} added"
        + (f", {format_count(dead, 'row')} of removed images" if dead else ""),
        "codes": f"{facts['levels']} levels of {facts['codebook']}; embeddings of "
        f"{facts['width']} numbers",
        "metadata": ", ".join(f"{name} ({kind})" for name, kind in facts["columns"].items())
        or "none",
        "search": f"{defaults.beams} beams, {defaults.candidates} candidates, "
        f"{defaults.fresh_beams} fresh beams, a hedge of {defaults.hedge:g}, by default",
        "words": f"answered by {index.text_method or 'nothing: the images have no texts'}",
        **({} if index.calibration == NO_LABELS else {"same label": describe_calibration(index)}),
        "on the disk": f"{format_bytes(sum(sizes.values()))}: images "
        f"{format_bytes(sizes['base'])}, changes since {format_bytes(sizes['changes'])}, models "
        f"{format_bytes(sizes['models'])}",
    }


def describe_calibration(index: Index) -> str:
    """Describe how right the probabilities of "same label" are."""
    from irgen.search.calibration import Uncalibrated

    fitted = index.calibration if isinstance(index.ranking, Uncalibrated) else index.ranking
    if isinstance(fitted, Uncalibrated):
        return f"not known: {fitted.reason}"
    return (
        f"learnt from {fitted.queries:,} validation images, off by "
        f"{format_percent(fitted.error)} on average"
    )


def describe_origin(index: Index, root: Path, outdated: bool) -> dict[str, str]:
    """Describe where the index comes from: a release, the pipeline, or a copy of one of these."""
    from irgen.index.copying import COPIED_FROM
    from irgen.releases import release

    folder, source = own_index.folder_of(index), own_index.source_folder(root)
    working = own_index.path_in(root)
    if own_index.is_release(folder):
        served = release.read(folder)
        facts = f"number {served.version}, of data revision {served.revision}"
        return {"release": f"{facts}; changes are made to a copy, {working}"}
    if own_index.is_of_pipeline(folder, root):
        return {"pipeline": f"this is its index; changes are made to a copy, {working}"}
    if COPIED_FROM not in index.info()["config"] or not source.exists():
        return {}
    lines = {"pipeline": f"copied from {source}, which is unchanged"}
    if outdated:
        lines = {"pipeline": project_index.describe_outdated(index, root)}
    if (counts := count_edits(index)) is not None:
        lines["by hand"] = (
            f"{format_count(counts['added'], 'image')} added, {counts['replaced']:,} replaced, "
            f"{counts['removed']:,} removed"
        )
    return lines


def count_edits(index: Index) -> dict[str, int] | None:
    """Return how many images of a copy were added, replaced and removed by hand; None if the index
    does not know what it was copied from."""
    edits = own_index.find_edits(index)
    if edits is None:
        return None
    return {
        "added": len(edits.added),
        "replaced": len(edits.replaced),
        "removed": len(edits.removed),
    }
