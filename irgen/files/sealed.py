"""Sealed files: each holds its own SHA-256, so that a flipped bit is noticed before its content is
used."""

import hashlib
import io
import mmap
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl

from irgen.errors import ArtifactError
from irgen.files.atomic import atomic
from irgen.files.records import AGAIN, DIGEST, damaged

SEAL, HEX = "irgen-sha256:", 64
UNSEALED = SEAL + "0" * HEX
FIRST = 1 << 12  # bytes in which the seal of a file begins that has it at its beginning


def write_blocks(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterable[np.ndarray]
) -> None:
    """Write an array of ``shape`` (N, …) as a sealed .npy, whole or not at all: ``blocks`` are its
    rows, one block in memory at a time."""
    total, rows = hashlib.sha256(), 0
    with atomic(path) as temporary, temporary.open("wb") as file:

        def write(content: bytes | memoryview) -> None:
            file.write(content)
            total.update(content)

        write(array_header(shape, dtype))
        for block in blocks:
            assert block.dtype == dtype and block.shape[1:] == shape[1:], "a block of the array"
            write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
            rows += len(block)
        assert rows == shape[0], f"{rows} rows of an array of {shape[0]}"
        total.update(UNSEALED.encode())
        file.write(SEAL.encode() + total.hexdigest().encode())


def array_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return the bytes with which a .npy file of this shape and type begins."""
    file = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


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
