"""The curves of a training."""

from pathlib import Path

import polars as pl

from irgen.files import atomic


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """The curves of a training as CSV, one row an epoch, blank where nothing was measured."""
    with atomic(path) as temporary:
        pl.DataFrame(history, infer_schema_length=None).write_csv(temporary)
