"""An image is decoded once in its life."""

import errno
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from PIL import ImageFile

from irgen.catalog import check
from irgen.catalog.check import NAME, check_images
from irgen.catalog.images import memory
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


def test_an_image_is_no_rejection_because_memory_ran_out(
    tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(image: ImageFile.ImageFile) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", run_out)
        with pytest.raises(MemoryError):
            check_images(Memory({"a": png(1)}), ["a"], tmp_path, 1)
    assert check_images(Memory({"a": png(1)}), ["a"], tmp_path, 1)["reason"].to_list() == [None]


def test_what_looks_like_damage_once_is_tried_again_alone(
    tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, errors = ImageFile.ImageFile.load, [OSError("broken data stream")] * 2

    def load_late(image: ImageFile.ImageFile) -> None:
        if errors:
            raise errors.pop()
        load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load_late)
    assert check_images(Memory({"a": png(1)}), ["a"], tmp_path, 1)["reason"].to_list() == [None]


def test_an_error_of_the_disk_is_no_rejection(
    tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(image: ImageFile.ImageFile) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(OSError, match="Input/output"):
        check_images(Memory({"a": png(1)}), ["a"], tmp_path, 1)


def test_where_memory_is_short_damage_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PIXELS", 1 << 60)
    with pytest.raises(MemoryError, match="memory are left"):
        check_images(Memory({"a": b"no"}), ["a"], tmp_path, 1)


def test_other_decoders_try_rejected_images_again_and_only_these(
    tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Memory({"a": png(1), "b": b"no"})
    check_images(stored, ["a", "b"], tmp_path, 1)
    stored.contents["b"], stored.reads = png(2), []  # as if the decoder had learnt to read it
    assert check_images(stored, ["a", "b"], tmp_path, 1)["reason"].count() == 1
    monkeypatch.setattr(check, "describe_decoders", lambda: "pillow=99")
    assert check_images(stored, ["a", "b"], tmp_path, 1)["reason"].count() == 0
    assert stored.reads == ["b"]


def test_results_are_saved_more_seldom_the_more_there_are(
    tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "CHUNK", 2)
    monkeypatch.setattr(check, "SHARE", 0.5)
    saved: list[int] = []
    monkeypatch.setattr(check, "write_parquet", lambda path, table: saved.append(len(table)))
    memory = Memory({f"{number:02d}": png(number) for number in range(20)})
    checked = check_images(memory, [*memory.contents], tmp_path, 1)
    assert saved == [2, 4, 6, 9, 13, 19, 20]
    assert checked["sha256"].to_list() == [*memory.contents]
