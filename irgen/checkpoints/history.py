"""Write the history of a training: its metrics, round by round."""

from pathlib import Path

import polars as pl

from irgen.files.atomic import atomic


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write the history as CSV, one row a round, blank where nothing was measured: the step, then
    metrics by name."""
    table = pl.DataFrame(history, infer_schema_length=None)
    table = table.select("step", *sorted(set(table.columns) - {"step"}))
    with atomic(path) as temporary:
        table.write_csv(temporary)
