"""Rows of a view, against a plain dictionary."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irgen.index.base_files import Base
from irgen.index.database import Change
from irgen.index.rows import Rows
from irgen.index.view import View
from irgen.search.snapshot import Segment


def images(keys: list[int], batch: int) -> Rows:
    count = len(keys)
    table = {"id": [f"{key}" for key in keys], "batch": [batch] * count}
    return Rows(
        table=pl.DataFrame(table, {"id": str, "batch": int}),
        keys=np.array(keys, np.int64),
        codes=torch.zeros(count, 1, dtype=torch.uint8),
        embeddings=torch.zeros(count, 1, dtype=torch.float16),
        trained=torch.zeros(count, dtype=torch.bool),
    )


def base(keys: list[int]) -> View:
    rows = images(sorted(keys), -1)
    keys_of_rows = torch.from_numpy(rows.keys)
    segment = Segment.build(rows.codes, rows.embeddings, keys_of_rows, rows.trained)
    start = Base(Path(), 1, "", segment, rows.table, rows.keys, {})
    return View.of(start, torch.zeros(1, 1, 1))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    start=st.lists(st.integers(0, 20), unique=True, max_size=6),
    batches=st.lists(
        st.tuples(
            st.lists(st.integers(0, 20), unique=True, max_size=4),
            st.lists(st.integers(0, 20), unique=True, max_size=2),
        ),
        max_size=4,
    ),
    wanted=st.lists(st.integers(0, 20), max_size=8),
)
def test_a_view_names_the_rows_that_a_dictionary_would(start, batches, wanted) -> None:
    view = base(start)
    table = [(f"{key}", -1) for key in sorted(start)]
    newest = {key: row for row, key in enumerate(sorted(start))}
    for number, (added, removed) in enumerate(batches):
        removed = [key for key in removed if key not in added]
        changes = [Change(key, f"{key}", b"0", b"00", f"[{number}]", 0) for key in added]
        changes += [Change(key, f"{key}", None, None, None, 0) for key in removed]
        view = view.apply(changes, number)
        newest |= {key: len(table) + i for i, key in enumerate(added)}
        newest = {key: row for key, row in newest.items() if key not in removed}
        table += [(f"{key}", number) for key in added]
        assert view.revision == number
    assert view.find_keys(np.array(wanted, np.int64)).tolist() == [
        newest.get(key, -1) for key in wanted
    ]
    assert view.table.rows() == table
    assert len(view) == len(newest)
    assert sorted(view.all_ids()) == sorted(str(key) for key in newest)
    some = np.array([(7 * key) % len(table) for key in wanted] if table else [], np.int64)
    assert view.take(some).rows() == [table[row] for row in some]
    assert view.ids(some) == [table[row][0] for row in some]
