"""What has changed in the catalogue since it was last published: two manifests compared."""

import shutil
from pathlib import Path

import polars as pl

from flows.project import memory
from irgen.catalog import manifest
from irgen.catalog.datasets.annotations import without
from irgen.files import atomic


def counts(root: Path) -> dict[str, int]:
    """How many images there are, and how many are new, changed and gone since ``remember``; the
    data's revision. All are new if nothing is remembered."""
    now = _images(root / "data" / "download")
    before = _images(_remembered(root))
    both = now.join(before, on="key", suffix="_before")
    revision, _ = manifest.read_revision(root / "data" / "download")
    return {
        "images": now.height,
        "new": now.height - both.height,
        "changed": both.filter(pl.col("sha256") != pl.col("sha256_before")).height,
        "gone": before.height - both.height,
        "revision": revision,
    }


def withheld(counted: dict[str, int]) -> str:
    """What the counts mean as long as the index that they are of is not served.

    >>> withheld({"images": 9, "new": 2, "changed": 0, "gone": 0, "revision": 4})
    'Waiting with it: 2 new, 0 changed, 0 gone; 9 images at revision 4.'
    """
    found = " Searches still find what is gone." if counted["gone"] else ""
    return f"Waiting with it: {told(counted)}.{found}"


def remember(root: Path) -> None:
    """Notes the manifest as the one that is published."""
    source = root / "data" / "download" / manifest.NAME
    if source.is_file():
        with atomic(_remembered(root) / manifest.NAME) as path:
            shutil.copyfile(source, path)


def _remembered(root: Path) -> Path:
    return memory(root) / "published"


def _images(folder: Path) -> pl.DataFrame:
    if not (folder / manifest.NAME).is_file():
        return pl.DataFrame(schema={"key": pl.String, "sha256": pl.String})
    return without(manifest.images(manifest.read(folder))).select("key", "sha256")


def told(counted: dict[str, int]) -> str:
    """The counts in words.

    >>> told({"images": 9, "new": 2, "changed": 0, "gone": 1, "revision": 4})
    '2 new, 0 changed, 1 gone; 9 images at revision 4'
    """
    return (
        f"{counted['new']:,} new, {counted['changed']:,} changed, {counted['gone']:,} gone; "
        f"{counted['images']:,} images at revision {counted['revision']}"
    )
