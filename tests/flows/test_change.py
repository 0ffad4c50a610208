"""What has changed since the last publication, by the manifests."""

from pathlib import Path

import polars as pl

from flows import change
from irgen.catalog import manifest


def write(root: Path, images: dict[str, str | None], revision: int) -> None:
    table = pl.DataFrame(
        [
            dict.fromkeys(manifest.SCHEMA.names()) | {"key": key, "sha256": sha}
            for key, sha in images.items()
        ],
        schema=manifest.SCHEMA,
    )
    folder = root / "data" / "download"
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write(folder, table, revision=revision, source="s")


def test_new_changed_and_gone_are_counted_since_the_last_publication(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1", "b": "2", "c": "3", "absent": None}, 1)
    counted = change.counts(tmp_path)
    assert counted == {"images": 3, "new": 3, "changed": 0, "gone": 0, "revision": 1}
    change.remember(tmp_path)
    assert change.counts(tmp_path)["new"] == 0
    write(tmp_path, {"a": "1", "b": "9", "d": "4", "e": "5"}, 2)
    counted = {"images": 4, "new": 2, "changed": 1, "gone": 1, "revision": 2}
    assert change.counts(tmp_path) == change.counts(tmp_path) == counted
    change.remember(tmp_path)
    assert change.told(change.counts(tmp_path)).startswith("0 new, 0 changed, 0 gone; 4 images")


def test_a_project_without_images_has_none(tmp_path: Path) -> None:
    change.remember(tmp_path)
    assert set(change.counts(tmp_path).values()) == {0}
