"""Sealed files: each holds its own SHA-256, so that a flipped bit is noticed before its content is
used."""

import hashlib
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from irgen.errors import ArtifactError
from irgen.files.atomic import atomic
from irgen.files.records import AGAIN, DIGEST, damaged

SEAL, HEX = "irgen-sha256:", 64
UNSEALED = SEAL + "0" * HEX
FIRST = 1 << 12  # bytes in which the seal of a file begins that has it at its beginning


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array as a sealed .npy, whole or not at all."""
    with atomic(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, values)
            file.write(UNSEALED.encode())
        seal(temporary)


def read_array(path: Path) -> np.ndarray:
    """Return the array in a .npy file, memory-mapped; changes to it stay in memory. Raises
    ArtifactError if the file is missing or damaged."""
    try:
        check_seal(path)
        return np.load(path, mmap_mode="c")
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: run the stage that writes it (dvc repro)"
        ) from None
    except (ValueError, EOFError) as error:
        raise damaged(path, error) from None


def write_parquet(path: Path, table: pl.DataFrame, notes: dict[str, str] | None = None) -> None:
    """Write a table as a sealed Parquet file with the metadata ``notes``, whole or not at all;
    equal tables give equal files."""
    with atomic(path) as temporary:
        table.rechunk().write_parquet(temporary, metadata={**(notes or {}), DIGEST: UNSEALED})
        seal(temporary)


def read_parquet(path: Path, remedy: str = AGAIN) -> pl.DataFrame:
    """Return the table in a Parquet file. Raises ArtifactError if it is missing or damaged."""
    try:
        check_seal(path, remedy)
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: run the stage that writes it (dvc repro)"
        ) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(path, error, remedy) from None


def read_numbers(path: Path, *texts: str) -> pl.DataFrame:
    """Return the table in a CSV file of numbers and the columns ``texts``. Raises ArtifactError if
    it is damaged, as far as that shows: such a file holds no checksum."""
    try:
        table = pl.read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(path, error) from None
    for column in table.drop(*texts, strict=False):
        if not column.dtype.is_numeric() and column.null_count() < len(column):
            raise damaged(path, f"column {column.name!r} has something else than numbers")
    return table


def write_safetensors(path: Path, write: Callable[[Path], None]) -> None:
    """Seal the safetensors file that ``write`` writes with the metadata UNSEALED, whole or not at
    all. Others may read it as they may any new file; the library alone would make it private."""
    with atomic(path) as temporary:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        write(temporary)
        temporary.chmod(mode)
        seal(temporary)


def seal(path: Path) -> None:
    """Write the SHA-256 of a file into it, where it holds UNSEALED."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        start = _find_seal(content)
        assert start >= 0, f"{path} has no place for a seal"
        content[start : start + HEX] = hashlib.sha256(content).hexdigest().encode()


def check_seal(path: Path, remedy: str = AGAIN) -> None:
    """Raise ArtifactError if a file is not as ``seal`` left it. A file without a seal, of an older
    version, passes."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise damaged(path, "it is empty", remedy)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = _find_seal(content)
            if start < 0:
                return
            expected, total = content[start : start + HEX], hashlib.sha256()
            with memoryview(content) as view, view[:start] as head, view[start + HEX :] as tail:
                total.update(head)
                total.update(b"0" * HEX)
                total.update(tail)
    if total.hexdigest().encode() != expected:
        raise damaged(path, "its checksum differs", remedy)


def _find_seal(content: mmap.mmap) -> int:
    """Return where the hexadecimal digits of a seal begin; −1 if there is none. Parquet files and
    arrays have it at their end, others at their beginning."""
    mark, at_end = SEAL.encode(), content[:4] in (b"PAR1", b"\x93NUM")
    start = content.rfind(mark) if at_end else content.find(mark, 0, FIRST)
    return start + len(mark) if start >= 0 else -1
