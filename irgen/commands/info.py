"""``irgen info``: what the index is."""

import json
from argparse import Namespace

from irgen.commands import places
from irgen.commands.answers import as_plain
from irgen.commands.wording import counted, percent, size
from irgen.index.copying import COPIED_FROM
from irgen.index.index import Index
from irgen.releases import release
from irgen.search.calibration import Uncalibrated


def run(options: Namespace) -> None:
    """Prints what the index is. Raises IndexingError if there is none or it is damaged; with
    ``options.verify`` every file is read to see that."""
    with places.to_read(options) as index:
        if options.verify:
            index.verify()
        outdated = places.is_outdated(index, options.root)
        if options.json:
            about = as_plain(index.info() | {"outdated": outdated, "verified": options.verify})
            print(json.dumps(about, indent=2))
            return
        lines = told(index) | _of_pipeline(index, options, outdated)
    if options.verify:
        lines["verified"] = "every file is as it was written"
    wide = max(map(len, lines))
    print("\n".join(f"{name:<{wide}}  {text}" for name, text in lines.items()))


def told(index: Index) -> dict[str, str]:
    """What there is to say of an index, line by line."""
    about, known = index.info(), index.calibration
    settings, taken = index.options(1), about["bytes"]
    gone = about["dead_rows"]
    if isinstance(known, Uncalibrated):
        sure = f"not known: {known.reason}"
    else:
        sure = (
            f"learnt from {known.pairs:,} hits of {known.queries:,} queries, off by "
            f"{percent(known.error)} on average"
        )
    return {
        "index": about["folder"],
        "images": f"{about['images']:,}, of which the retriever was trained on "
        f"{about['trained']:,}",
        "since compacted": f"{counted(about['added'], 'image')} added"
        + (f", {counted(gone, 'row')} of images that are gone" if gone else ""),
        "codes": f"{about['levels']} levels of {about['codebook']}; embeddings of "
        f"{about['width']} numbers",
        "metadata": ", ".join(f"{name} ({kind})" for name, kind in about["columns"].items())
        or "none",
        "search": f"{settings.beams} beams, {settings.candidates} candidates, "
        f"{settings.fresh_beams} fresh beams, unless told otherwise",
        "same label": sure,
        "on the disk": f"{size(sum(taken.values()))}: images {size(taken['base'])}, "
        f"changes since {size(taken['changes'])}, models {size(taken['models'])}",
    }


def _of_pipeline(index: Index, options: Namespace, outdated: bool) -> dict[str, str]:
    """Where the index stands beside the one that is served, or that the pipeline makes."""
    folder, made = places.folder_of(index), places.source(options.root)
    if places.is_release(folder):
        own, one = options.root / places.OWN, release.read(folder)
        what = f"number {one.version}, of data revision {one.revision}"
        return {"release": f"{what}; changes are made to a copy, {own}"}
    if places.is_pipelines(folder, options.root):
        own = options.root / places.OWN
        return {"pipeline": f"this is what it makes; changes are made to a copy, {own}"}
    if COPIED_FROM not in index.info()["config"] or not made.exists():
        return {}
    if not outdated:
        return {"pipeline": f"made from {made}, which is still the same"}
    if places.is_release(made):
        since = f"not made from {made}, which is served now"
    else:
        since = f"made from {made}, which was made anew since"
    return {
        "pipeline": f"{since}. To start anew from that one: "
        f"mv {folder} {folder}-old; the next irgen add makes {folder} from it, without what was "
        "added or removed here, so add and remove that again"
    }
