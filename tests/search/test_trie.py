import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.search import trie


@st.composite
def codes(draw):
    levels, size = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    row = st.lists(st.integers(0, size - 1), min_size=levels, max_size=levels)
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=40)))


def walk(built: trie.Trie, node: int | None, level: int):
    """Children of a node as (code, node) by the arrays."""
    if level == 0:
        first, end = 0, len(built.codes[0])
    else:
        first, end = built.offsets[level - 1][node : node + 2].tolist()
    return [(int(built.codes[level][child]), child) for child in range(first, end)]


@given(codes())
@settings(max_examples=60, deadline=None)
def test_the_arrays_are_the_dictionary_trie(table):
    oracle: dict = {}
    for row, code in enumerate(table.tolist()):
        expected = oracle
        for entry in code[:-1]:
            expected = expected.setdefault(entry, {})
        expected.setdefault(code[-1], []).append(row)
    built = trie.build(table)

    def same(expected, node, level):
        children = walk(built, node, level)
        assert [entry for entry, _ in children] == sorted(expected)
        for entry, child in children:
            if level + 1 == built.levels:
                first, end = built.offsets[level][child : child + 2].tolist()
                assert built.postings[first:end].tolist() == expected[entry]
            else:
                same(expected[entry], child, level + 1)

    same(oracle, None, 0)


@given(codes())
@settings(max_examples=40, deadline=None)
def test_the_leaves_spell_the_distinct_codes_in_order(table):
    assert torch.equal(trie.codes_of(trie.build(table)), table.unique(dim=0))


@given(codes())
@settings(max_examples=20, deadline=None)
def test_tensors_and_back(table):
    built = trie.build(table)
    again = trie.from_tensors(trie.to_tensors(built))
    assert again.fanout == built.fanout
    for one, other in zip(
        (*built.codes, *built.offsets, built.postings),
        (*again.codes, *again.offsets, again.postings),
        strict=True,
    ):
        assert torch.equal(one, other)


@given(codes())
@settings(max_examples=20, deadline=None)
def test_positions_invert_the_postings(table):
    built = trie.build(table)
    assert built.postings[built.positions].tolist() == list(range(len(table)))


def test_codes_too_wide_for_one_key_sort_alike():
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(3, (300, 9), generator=generator) * 1000
    wide = trie.build(table)  # 9 levels × 11 bits do not fit in 62
    assert torch.equal(trie.codes_of(wide), table.unique(dim=0))
    narrow = trie.build(table // 1000)
    assert torch.equal(wide.postings, narrow.postings)


def test_fanout_is_the_most_children_of_any_node():
    built = trie.build(torch.tensor([[0, 0], [0, 1], [0, 2], [1, 0]]))
    assert built.fanout == (2, 3)
