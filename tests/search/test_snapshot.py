import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irgen.search.snapshot import Segment, Snapshot


def test_what_dies_is_gone_from_the_new_snapshot_and_not_from_the_old(fresh):
    whole = fresh(list(range(30)))
    less = whole.without(torch.tensor([3, 5]))
    assert (len(whole), len(less), less.rows) == (30, 28, 30)
    assert less.alive_rows().tolist() == [row for row in range(30) if row not in (3, 5)]
    assert whole.alive_rows().tolist() == list(range(30))
    assert less.live_tries[0].counts is not None and whole.live_tries[0].counts is None


@given(st.lists(st.lists(st.integers(0, 35), max_size=12), max_size=4))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_removing_step_by_step_is_removing_at_once(fresh, images, steps):
    """Also rows of both segments, given twice or dead already."""
    whole = fresh(list(range(30))).with_added(Segment.build(*images(list(range(40, 46)))))
    less = whole
    for rows in steps:
        less = less.without(torch.tensor(rows, dtype=torch.int64))
    dead = torch.tensor(sorted({row for rows in steps for row in rows}), dtype=torch.int64)
    alive = torch.ones(36, dtype=torch.bool).index_fill(0, dead, False).split([30, 6])
    expected = Snapshot.build(whole.segments, alive, whole.codebooks)
    assert all(torch.equal(*pair) for pair in zip(less.alive, expected.alive, strict=True))
    for one, other in zip(
        (*less.live_tries, *less.fresh_tries),
        (*expected.live_tries, *expected.fresh_tries),
        strict=True,
    ):
        assert torch.equal(one.postings, other.postings)
        assert torch.equal(one.group_offsets, other.group_offsets)
        assert all(map(torch.equal, one.counts or (), other.counts or ()))
        assert (one.counts is None) == (other.counts is None)


def test_added_rows_follow_and_the_dead_stay_dead(fresh, images):
    base = fresh(list(range(10)))
    once = base.with_added(Segment.build(*images([20, 21])))
    assert (len(once), once.rows, once.starts) == (12, 12, (0, 10, 12))
    less = once.without(torch.tensor([0, 11]))
    twice = less.with_added(Segment.build(*images([20, 21, 22])))
    assert twice.alive_rows().tolist() == [*range(1, 11), 12]


def test_gathering_reads_through_the_segments(fresh, images):
    numbers = list(range(8))
    keys = images(numbers)[2].sort().values
    late = images([30, 31])
    both = fresh(numbers).with_added(Segment.build(*late))
    rows = torch.tensor([[0, 9], [8, -1]])
    expected = torch.stack([keys[0], late[2][1], late[2][0], keys[0]]).view(2, 2)
    assert torch.equal(both.gather(rows, "keys"), expected)
    assert both.gather(rows, "embeddings").shape == (2, 2, 5)
    empty = fresh([]).with_added(Segment.build(*late))
    assert torch.equal(empty.gather(torch.tensor([1, 0]), "keys"), late[2][[1, 0]])


def test_fresh_parts_hold_the_images_the_retriever_was_not_trained_on(fresh, images):
    numbers = list(range(12))  # of which 0, 3, 6, 9 are not trained on
    snapshot = fresh(numbers)
    trained = snapshot.segments[0].trained
    (_, part), *_ = snapshot.live_parts(fresh=True)
    assert sorted(part.postings.tolist()) == torch.nonzero(~trained).flatten().tolist()
    only_trained = snapshot.without(torch.nonzero(~trained).flatten())
    assert only_trained.live_parts(fresh=True) == []
    assert len(only_trained.live_parts(fresh=False)[0].live) == 8


def test_a_filter_is_a_snapshot_in_which_less_is_alive(fresh):
    snapshot = fresh(list(range(20))).without(torch.tensor([2]))
    allowed = torch.zeros(20, dtype=torch.bool)
    allowed[:4] = True
    assert snapshot.keep_allowed(allowed).alive_rows().tolist() == [0, 1, 3]
    assert snapshot.keep_allowed(~torch.ones(20, dtype=torch.bool)).live_parts(fresh=False) == []
