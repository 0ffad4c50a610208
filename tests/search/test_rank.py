import torch

from irgen.search import rank, trie
from irgen.search.beam import Beams
from irgen.search.rank import LAST, Candidates
from irgen.search.snapshot import Segment, Snapshot

CODES = torch.tensor([[0, 0], [1, 1], [0, 0], [1, 0], [1, 1], [0, 0]])  # leaves: 00, 10, 11
INF = torch.inf
OPENING = torch.tensor([[0.6, 0.4]]).log()


def database(embeddings: torch.Tensor | None = None) -> Snapshot:
    vectors = torch.eye(6) if embeddings is None else embeddings
    return Snapshot.fixed(trie.build(CODES), CODES, vectors, torch.zeros(2, 2, vectors.shape[1]))


def beams(leaves: list[list[int]], scores: list[list[float]], *others: list[list[int]]) -> Beams:
    parts = tuple(torch.tensor(part, dtype=torch.int32) for part in (leaves, *others))
    table = torch.tensor(scores)
    return Beams(parts, torch.zeros(*table.shape, 2), table, table + 0.5, OPENING)


def gather(last_beams: Beams, limit: int, snapshot: Snapshot | None = None) -> Candidates:
    snapshot = snapshot or database()
    return rank.gather(snapshot, snapshot.live_parts(fresh=False), last_beams, limit)


def test_code_groups_come_in_the_order_of_the_beams():
    candidates = gather(beams([[2, 0]], [[-1.0, -2.0]]), 10)
    assert candidates.rows.tolist() == [[1, 4, 0, 2, 5]]
    assert candidates.scores.tolist() == [[-1.0, -1.0, -2.0, -2.0, -2.0]]
    assert candidates.normalised_log_probs.tolist() == [[-0.5, -0.5, -1.5, -1.5, -1.5]]
    assert not candidates.by_embedding.any()


def test_a_dead_beam_brings_nothing_and_short_queries_are_padded():
    candidates = gather(beams([[1, -1], [0, 2]], [[-1.0, -INF], [-1.0, -2.0]]), 10)
    assert candidates.rows.tolist() == [[3, -1, -1, -1, -1], [0, 2, 5, 1, 4]]
    assert candidates.keys[0].tolist() == [3] + [LAST] * 4
    assert candidates.scores[0].tolist() == [-1.0] + [-INF] * 4


def test_no_more_is_gathered_than_the_limit():
    assert gather(beams([[0, 2, 1]], [[-1.0, -2.0, -3.0]]), 4).rows.tolist() == [[0, 2, 5, 1]]
    assert gather(beams([[0, 2, 1]], [[-1.0, -2.0, -3.0]]), 2).rows.tolist() == [[0, 2]]


def test_one_code_group_in_two_segments_is_cut_by_key_as_one():
    ones = torch.ones(6, dtype=torch.bool)
    base = Segment.build(CODES, torch.eye(6), torch.arange(0, 60, 10), ones)
    late = Segment.build(CODES[[0, 1, 0]], torch.eye(6)[:3], torch.tensor([45, 1, 15]), ones[:3])
    both = Snapshot.build((base,), (ones,), torch.zeros(2, 2, 6)).with_added(late)
    last_beams = beams([[0, 2]], [[-1.0, -2.0]], [[0, 1]])  # 00 and 11, nodes 0 and 1 of the second
    assert gather(last_beams, 4, both).keys.tolist() == [[0, 15, 20, 45]]
    assert gather(last_beams, 4, both).rows.tolist() == [[0, 8, 2, 6]]
    assert gather(last_beams, 9, both).keys.tolist() == [[0, 15, 20, 45, 50, 1, 10, 40]]


def test_images_are_ordered_by_score_or_by_code_and_ties_by_key():
    candidates = gather(beams([[2, 0]], [[-1.0, -2.0]]), 10)  # rows 1 4 | 0 2 5
    cosines = torch.tensor([[0.1, 0.9, 0.5, 0.7, 0.7]])
    by_code = candidates.rows.gather(1, rank.order_by_code(candidates, candidates.scores, cosines))
    assert by_code.tolist() == [[4, 1, 2, 5, 0]]
    by_score = candidates.rows.gather(1, rank.order_by_score(candidates, cosines))
    assert by_score.tolist() == [[4, 2, 5, 0, 1]]


def test_similarity_is_the_cosine_of_unit_vectors():
    queries = torch.tensor([[0.0, 0, 0, 0.6, 0.8, 0]])
    cosines = rank.cosine(torch.tensor([[3, -1]]), queries, database())
    torch.testing.assert_close(cosines, torch.tensor([[0.6, -INF]]))


def test_an_image_found_twice_stays_as_it_was_found_first():
    written = gather(beams([[1, 0]], [[-1.0, -2.0]]), 10)  # 3 | 0 2 5
    near = gather(beams([[2, 1]], [[9.0, 8.0]]), 10).mark_by_embedding()  # 1 4 | 3
    both = written.merge(near)
    assert both.rows.tolist() == [[3, 0, 2, 5, 1, 4, -1]]
    assert both.by_embedding.tolist() == [[False] * 4 + [True] * 2 + [False]]
    assert both.scores.tolist() == [[-1.0, -2.0, -2.0, -2.0, -INF, -INF, -INF]]


def test_near_duplicates_hide_behind_the_better_one():
    angles = torch.tensor([0.0, 0.1, 0.2, 1.0, 1.05, 3.0])
    snapshot = database(torch.stack([angles.cos(), angles.sin()], 1))
    rows = torch.tensor([[0, 1, 2, 3, 4, 5, -1]])
    kept = rank.mask_near_duplicates(rows, snapshot, float(torch.tensor(0.15).cos()))
    assert kept.tolist() == [[True, False, True, True, False, True, False]]
    order = rank.order_kept_first(kept)
    assert rows.gather(1, order).tolist() == [[0, 2, 3, 5, 1, 4, -1]]
