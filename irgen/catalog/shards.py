"""Shards: images packed into plain tar files, so that a million images are a few hundred files."""

import hashlib
import os
import tarfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import polars as pl

from irgen.catalog import manifest
from irgen.errors import ArtifactError, SourceError
from irgen.files.hash_rows import HashRows, pack_hashes

FOLDER = "images"
SHARD_BYTES = 128 * 1024 * 1024
BLOCK = 512  # of the tar format
END = bytes(2 * BLOCK)


def shard_path(folder: Path, shard: str) -> Path:
    """Return the file of `shard` below the download folder."""
    return folder / FOLDER / f"{shard}.tar"


class ShardWriter:
    """Pack images into new shards `r00002-000`, `r00002-001` … of at most `limit` bytes.

    A shard takes its name when it is full or the `with` block ends well; until then it is a
    temporary file that the next sync deletes. A SourceError ends the block well, too: what the
    source gave is not lost. An image larger than `limit` has a shard of its own. Existing shards
    are never touched. `finished` is called with the name of each complete shard.
    """

    def __init__(
        self,
        folder: Path,
        revision: int,
        limit: int = SHARD_BYTES,
        finished: Callable[[str], None] = lambda shard: None,
    ) -> None:
        self._folder, self._revision, self._limit = folder, revision, limit
        self._finished = finished
        self._file: IO[bytes] | None = None
        self._shard = ""

    def __enter__(self) -> "ShardWriter":
        (self._folder / FOLDER).mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        if kind is None or issubclass(kind, SourceError):
            self._finish()
        else:
            with suppress(OSError):  # a full disk says so again
                self._file.close()
            self._temporary().unlink(missing_ok=True)

    def add(self, key: str, content: bytes) -> tuple[str, int]:
        """Append one image; return its shard and the offset at which its bytes start."""
        member = tarfile.TarInfo(key)
        member.size = len(content)
        header = member.tobuf(tarfile.GNU_FORMAT, "utf-8")
        padding = bytes(-len(content) % BLOCK)
        needed = len(header) + len(content) + len(padding) + len(END)
        if self._file is not None and self._file.tell() + needed > self._limit:
            self._finish()
        file = self._file or self._start()
        file.write(header)
        offset = file.tell()
        file.write(content)
        file.write(padding)
        return self._shard, offset

    def _start(self) -> IO[bytes]:
        number = 0
        while shard_path(self._folder, f"r{self._revision:05d}-{number:03d}").exists():
            number += 1
        self._shard = f"r{self._revision:05d}-{number:03d}"
        self._file = self._temporary().open("wb")
        return self._file

    def _finish(self) -> None:
        assert self._file is not None, "a shard is finished only once it is started"
        self._file.write(END)
        self._file.close()
        self._temporary().replace(shard_path(self._folder, self._shard))
        self._file = None
        self._finished(self._shard)

    def _temporary(self) -> Path:
        path = shard_path(self._folder, self._shard)
        return path.with_name(f".{path.name}.{os.getpid()}.tmp")


class Images:
    """Packed images of a download folder by content hash, removed ones too if their bytes are still
    there. `tables` of images stand in for its manifest. Threads may share it. Memory: 80 bytes an
    image.

    Raises ArtifactError if the manifest or, on reading, a shard is missing or damaged.
    """

    def __init__(self, folder: Path, *tables: pl.DataFrame) -> None:
        self._folder = folder.absolute()  # processes elsewhere may read the same images
        columns = ("sha256", "shard", "offset", "size")
        tables = tables or manifest.read_with_past(folder)
        table = pl.concat([manifest.images(table).select(columns) for table in tables])
        self._shards = table["shard"]
        self._offsets = table["offset"].to_numpy()
        self._sizes = table["size"].to_numpy()
        self._rows = HashRows(pack_hashes(table["sha256"]))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def folder(self) -> Path:
        """Return the download folder."""
        return self._folder

    def __contains__(self, sha256: str) -> bool:
        return self._find(sha256) >= 0

    def size(self, sha256: str) -> int:
        """Return the number of bytes of the image with this content hash."""
        return int(self._sizes[self._row(sha256)])

    def _row(self, sha256: str) -> int:
        row = self._find(sha256)
        if row < 0:
            raise ArtifactError(f"no image {sha256} in {self._folder}: run the catalog stage again")
        return row

    def _find(self, sha256: str) -> int:
        try:
            return int(self._rows.find(pack_hashes([sha256]))[0])
        except ValueError:  # no hash
            return -1

    def read(self, sha256: str) -> bytes:
        """Return the bytes of the image with this content hash, which is checked."""
        row = self._row(sha256)
        path, size = shard_path(self._folder, self._shards[row]), int(self._sizes[row])
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ArtifactError(
                f"shard {path} cannot be read ({error.strerror}): run the download stage again"
            ) from None
        try:
            content = os.pread(file, size, int(self._offsets[row]))
        finally:
            os.close(file)
        if len(content) != size:
            raise ArtifactError(f"shard {path} is truncated: run the download stage again")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ArtifactError(
                f"shard {path} is damaged (image {sha256} has another checksum): delete the shard, "
                "then run the download stage, which reads its images again (dvc repro)"
            )
        return content


def find_intact(folder: Path, table: pl.DataFrame) -> set[str]:
    """Return the shards of a manifest that are there and hold every image listed in them."""
    needed = (
        manifest.images(table)
        .group_by("shard")
        .agg((pl.col("offset") + pl.col("size")).max().alias("bytes"))
    )
    return {
        shard
        for shard, size in needed.select("shard", "bytes").iter_rows()
        if (path := shard_path(folder, shard)).is_file() and path.stat().st_size >= size
    }


def sweep_strays(folder: Path, table: pl.DataFrame, kept: Collection[str] = ()) -> int:
    """Delete every file among the shards that is neither listed in the manifest `table` nor named
    in `kept`; return how many."""
    listed = {f"{shard}.tar" for shard in table["shard"].drop_nulls().unique()} | {*kept}
    stray = [path for path in (folder / FOLDER).glob("*") if path.name not in listed]
    stray += folder.glob(f".{manifest.NAME}.*.tmp")
    for path in stray:
        path.unlink(missing_ok=True)
    return len(stray)
