import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.search import live, trie


@st.composite
def masked(draw):
    levels, size = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    row = st.lists(st.integers(0, size - 1), min_size=levels, max_size=levels)
    codes = torch.tensor(draw(st.lists(row, min_size=1, max_size=40)))
    mask = draw(st.lists(st.booleans(), min_size=len(codes), max_size=len(codes)))
    return codes, torch.tensor(mask)


@given(masked())
@settings(max_examples=60, deadline=None)
def test_the_live_count_of_a_node_is_the_number_of_live_rows_below_it(case):
    codes, mask = case
    built = trie.build(codes)
    part = live.keep_rows(built, mask)
    assert len(part) == int(mask.sum())
    for level in range(built.levels):
        prefixes, inverse = codes[:, : level + 1].unique(dim=0, return_inverse=True)
        counts = torch.bincount(inverse[mask], minlength=len(prefixes))
        assert part.counts is not None
        assert torch.equal(part.counts[level].long(), counts)


@given(masked())
@settings(max_examples=60, deadline=None)
def test_a_leafs_code_group_holds_its_live_rows_in_the_tries_order(case):
    codes, mask = case
    built = trie.build(codes)
    part, whole = live.keep_rows(built, mask), live.keep_all(built)
    for leaf in range(len(built.codes[-1])):
        every = whole.postings[whole.group_offsets[leaf] : whole.group_offsets[leaf + 1]].tolist()
        alive = part.postings[part.group_offsets[leaf] : part.group_offsets[leaf + 1]].tolist()
        assert alive == [row for row in every if mask[row]]


def equal(one: live.LiveTrie, other: live.LiveTrie) -> bool:
    """Tell whether two live tries are equal, dtypes included."""
    pairs = [(one.group_offsets, other.group_offsets), (one.postings, other.postings)]
    pairs += zip(one.counts or (), other.counts or (), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@given(masked(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_rows_taken_away_step_by_step_leave_what_a_count_of_the_rest_gives(case, random):
    codes, mask = case
    built = trie.build(codes)
    part = live.keep_all(built) if mask.all() else live.keep_rows(built, mask)
    for _ in range(3):
        there = torch.nonzero(mask).flatten().tolist()
        gone = torch.tensor(random.sample(there, random.randint(0, len(there))), dtype=torch.int64)
        mask = mask.index_fill(0, gone, False)
        less = live.drop_rows(part, gone)
        if len(gone):
            assert equal(less, live.keep_rows(built, mask))
        else:
            assert less is part
        part = less


@given(masked())
@settings(max_examples=40, deadline=None)
def test_the_tables_of_children_lead_to_live_nodes_alone(case):
    codes, mask = case
    built = trie.build(codes)
    part = live.keep_rows(built, mask)
    roots = {int(e): node for node, e in enumerate(built.codes[0])}
    alive = set(codes[mask, 0].tolist())
    nodes = {code: int(node) for code, node in enumerate(part.first) if node >= 0}
    assert nodes == {code: node for code, node in roots.items() if code in alive}
    if built.levels > 1:
        assert part.second is not None
        pairs = {(i, j) for i, j in codes[mask, :2].tolist()}
        assert {
            (int(built.codes[0][i]), j) for i, j in torch.nonzero(part.second >= 0).tolist()
        } == pairs
        assert (part.second[-1] == -1).all()
