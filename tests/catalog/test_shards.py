"""Packed images come back by content hash, and the shards are plain tar files."""

import hashlib
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog import manifest
from irgen.catalog.shards import FOLDER, Images, ShardWriter, find_intact, sweep_strays
from irgen.errors import ArtifactError

KEYS = ["cat/1.png", "dog/" + "long" * 40 + ".png", "owl/ünïcode.png", "owl/empty.png"]


def content(row: int) -> bytes:
    return b"" if row == 3 else bytes([row + 1]) * (700 * row + 1)


def sha(row: int) -> str:
    return hashlib.sha256(content(row)).hexdigest()


def pack(folder: Path, limit: int = 1 << 20) -> pl.DataFrame:
    rows = []
    with ShardWriter(folder, 1, limit) as shards:
        for row, key in enumerate(KEYS):
            location = shards.add(key, content(row))
            rows.append((key, len(content(row)), "", sha(row), 1, *location, None, None))
    table = pl.DataFrame(rows, schema=manifest.SCHEMA, orient="row")
    manifest.write(folder, table, revision=1, source="test")
    return table


def test_what_is_packed_is_read_back_by_hash_from_any_thread(tmp_path: Path) -> None:
    pack(tmp_path)
    images = Images(tmp_path)
    wanted = [0, 1, 2, 3] * 20
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda row: images.read(sha(row)), wanted))
    assert contents == [content(row) for row in wanted]
    assert len(images) == 4 and sha(1) in images and sha(9) not in images


def test_of_tables_the_first_that_has_an_image_says_where_it_is(tmp_path: Path) -> None:
    table = pack(tmp_path)
    elsewhere = table.with_columns(shard=pl.lit("r00009-000"))
    images = Images(tmp_path, table, elsewhere)
    assert len(images) == 4 and images.read(sha(2)) == content(2)
    with pytest.raises(ArtifactError, match="r00009-000"):
        Images(tmp_path, elsewhere, table).read(sha(2))
    nothing = Images(tmp_path, table.clear())
    assert len(nothing) == 0 and sha(1) not in nothing and "sha9" not in images


def test_a_shard_is_a_tar_file_that_any_tool_reads(tmp_path: Path) -> None:
    table = pack(tmp_path)
    with tarfile.open(tmp_path / FOLDER / "r00001-000.tar") as archive:
        assert archive.getnames() == KEYS
        assert [archive.extractfile(key).read() for key in KEYS] == [content(r) for r in range(4)]
        assert [archive.getmember(key).offset_data for key in KEYS] == table["offset"].to_list()


def test_a_full_shard_gives_way_to_the_next_and_existing_ones_are_never_touched(
    tmp_path: Path,
) -> None:
    first = pack(tmp_path, limit=3000)
    assert first["shard"].n_unique() > 1
    before = {p.name: p.read_bytes() for p in (tmp_path / FOLDER).iterdir()}
    second = pack(tmp_path, limit=3000)
    assert not set(second["shard"]) & set(first["shard"])
    assert all((tmp_path / FOLDER / name).read_bytes() == was for name, was in before.items())


def test_a_failed_pack_leaves_no_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, 1) as shards:
        shards.add("a", b"1")
        raise RuntimeError
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_damage_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run the download stage"):
        Images(tmp_path)
    table = pack(tmp_path)
    images, shard = Images(tmp_path), tmp_path / FOLDER / "r00001-000.tar"
    with pytest.raises(ArtifactError, match="no image"):
        images.read("sha9")
    shard.write_bytes(shard.read_bytes()[:2000])
    assert find_intact(tmp_path, table) == set()
    with pytest.raises(ArtifactError, match="truncated"):
        images.read(sha(2))
    shard.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        images.read(sha(0))
    (tmp_path / manifest.NAME).write_bytes(b"PAR1 no")
    with pytest.raises(ArtifactError, match="damaged"):
        Images(tmp_path)
    with pytest.raises(ArtifactError, match="damaged"):
        manifest.read_revision(tmp_path)


def test_a_flipped_bit_in_a_shard_is_noticed_before_its_image_is_read(tmp_path: Path) -> None:
    pack(tmp_path)
    images, shard = Images(tmp_path), tmp_path / FOLDER / "r00001-000.tar"
    whole, draw, refused = shard.read_bytes(), random.Random(0), 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        shard.write_bytes(damaged)
        for row in range(4):
            try:
                assert images.read(sha(row)) == content(row)
            except ArtifactError as error:
                assert "r00001-000.tar is damaged" in str(error) and "delete the shard" in str(
                    error
                )
                refused += 1
    assert refused > 50  # the rest lay in headers and padding


def test_sweeping_deletes_what_the_manifest_does_not_list(tmp_path: Path) -> None:
    table = pack(tmp_path)
    for stray in (".r00002-000.tar.77.tmp", "r00002-000.tar", "other"):
        (tmp_path / FOLDER / stray).write_bytes(b"x")
    (tmp_path / f".{manifest.NAME}.77.tmp").write_bytes(b"x")
    assert sweep_strays(tmp_path, table) == 4
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["r00001-000.tar"]
    assert find_intact(tmp_path, table) == {"r00001-000"}
