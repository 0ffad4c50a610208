import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from irgen.compute.batches import full_batches
from irgen.encoding.batches import EncodedViews


@given(st.integers(0, 40), st.integers(1, 12))
def test_in_order_reads_each_row_once_in_full_batches(count, size):
    batches = list(full_batches(count, size))
    assert all(len(rows) == size for rows, _ in batches)
    assert [row for rows, new in batches for row in rows[:new].tolist()] == list(range(count))
    assert all((rows < max(count, 1)).all() for rows, _ in batches)


def test_views_gives_the_plain_view_or_a_random_one():
    summaries = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    views = EncodedViews(summaries, None)
    assert views.plain(torch.tensor([1]))[0].tolist() == [[6, 7]]
    generator = torch.Generator().manual_seed(0)
    seen = {tuple(views.training(torch.tensor([0]), generator)[0][0].tolist()) for _ in range(50)}
    assert seen == {(0, 1), (2, 3), (4, 5)}
