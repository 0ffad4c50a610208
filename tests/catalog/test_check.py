"""An image is decoded once in its life."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog.check import NAME, check_images
from irgen.errors import ArtifactError

Png = Callable[[int], bytes]


class Memory:
    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents, self.reads = contents, []

    def size(self, sha256: str) -> int:
        return len(self.contents[sha256])

    def read(self, sha256: str) -> bytes:
        self.reads.append(sha256)
        return self.contents[sha256]


def test_sizes_and_reasons_are_found_once_and_remembered(tmp_path: Path, png: Png) -> None:
    memory = Memory({"a": png(1), "b": b"no", "c": png(2)})
    first = check_images(memory, ["a", "b", "a"], tmp_path, 2)
    assert sorted(first.drop("across", "down").rows()) == [
        ("a", 5, 6, None),
        ("b", -1, -1, "not an image of a known format"),
    ]
    fingerprints = dict(first.select("sha256", pl.struct("across", "down")).iter_rows())
    assert fingerprints["a"]["across"] and fingerprints["b"] == {"across": None, "down": None}
    second = check_images(memory, ["c", "a"], tmp_path, 2)
    assert sorted(second["sha256"]) == ["a", "c"]
    assert sorted(memory.reads) == ["a", "b", "b", "c"]  # a rejection is tried twice
    assert len(check_images(memory, ["a", "b", "c"], tmp_path, 0)) == 3
    assert len(memory.reads) == 4


def test_a_damaged_memory_is_made_again_with_a_warning(tmp_path: Path, png: Png) -> None:
    (tmp_path / NAME).write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match="made again"):
        assert len(check_images(Memory({"a": png(1)}), ["a"], tmp_path, 1)) == 1


def test_a_lost_shard_is_no_rejection(tmp_path: Path) -> None:
    class Lost:
        def size(self, sha256: str) -> int:
            return 1

        def read(self, sha256: str) -> bytes:
            raise ArtifactError("shard is gone")

    with pytest.raises(ArtifactError, match="shard is gone"):
        check_images(Lost(), ["a"], tmp_path, 1)
