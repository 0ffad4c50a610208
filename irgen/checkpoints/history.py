"""Write the history of a training: its metrics, epoch by epoch."""

from pathlib import Path

import polars as pl

from irgen.files import atomic


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write the history as CSV, one row an epoch, blank where nothing was measured: the epoch, then
    metrics by name."""
    table = pl.DataFrame(history, infer_schema_length=None)
    table = table.select("epoch", *sorted(set(table.columns) - {"epoch"}))
    with atomic(path) as temporary:
        table.write_csv(temporary)
