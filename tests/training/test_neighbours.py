import pytest
import torch
from torch.nn.functional import normalize

from irgen.training import neighbours


def unit(count: int, spread: float = 0.1, width: int = 16) -> torch.Tensor:
    """Return unit vectors around a hundred centres."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(100, width, generator=generator)
    strays = torch.randn(count, width, generator=generator)
    return normalize(centres[torch.arange(count) % 100] + spread * strays, dim=1)


def exact(vectors: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.arange(len(vectors))
    return neighbours.compare(vectors, rows, rows, k)


def test_cells_that_hold_every_true_neighbour_give_the_exact_result(monkeypatch):
    monkeypatch.setattr(neighbours, "REACHED", 1.0)
    monkeypatch.setattr(neighbours, "SAMPLE", 2000)
    vectors = unit(2000)
    rows, cosines = neighbours.search_cells(vectors, 7, seed=1)
    true_rows, true_cosines = exact(vectors, 7)
    assert (rows == true_rows).double().mean() > 0.999  # products of other shapes round otherwise
    torch.testing.assert_close(cosines, true_cosines)


def test_cells_find_most_neighbours_and_compare_few_vectors(monkeypatch):
    compared = []
    compare = neighbours.compare

    def counting(vectors, anchors, candidates, k):
        compared.append(len(anchors) * len(candidates))
        return compare(vectors, anchors, candidates, k)

    vectors = unit(8000)
    monkeypatch.setattr(neighbours, "compare", counting)
    rows, cosines = neighbours.search_cells(vectors, 10, seed=0)
    assert sum(compared[1:]) < 0.1 * 8000**2  # the first ones are the sample's
    assert (rows != torch.arange(8000)[:, None]).all()
    assert (cosines.diff(dim=1) <= 0).all()
    torch.testing.assert_close(cosines, (vectors[:, None] * vectors[rows]).sum(-1))
    monkeypatch.setattr(neighbours, "EXACT", 1000)
    assert neighbours.measure_recall(vectors, (torch.arange(8000),), cosines, seed=1) > 0.9


@pytest.mark.parametrize("k", [1, 60, 400])
def test_every_vector_has_k_neighbours_however_small_its_cell(k):
    rows, cosines = neighbours.search_cells(unit(900), k, seed=0)
    assert (rows >= 0).all()
    assert all(len(set(row)) == k for row in rows.tolist())
    assert cosines.isfinite().all()


def test_a_thousand_copies_of_one_image_are_each_others_neighbours():
    vectors = torch.cat([unit(3000), unit(1).expand(1000, -1)])
    rows, cosines = neighbours.search_cells(vectors, 20, seed=0)
    assert (cosines[3000:] > 0.9999).all()
    assert (rows[3000:] != torch.arange(3000, 4000)[:, None]).all()


def test_scattered_vectors_are_compared_with_a_bounded_number_of_others(monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT", 200)
    sizes = []
    compare = neighbours.compare

    def counting(vectors, anchors, candidates, k):
        sizes.append(len(candidates))
        return compare(vectors, anchors, candidates, k)

    monkeypatch.setattr(neighbours, "compare", counting)
    scattered = normalize(torch.randn(3000, 64), dim=1)
    scattered[:1500] = scattered[0]
    neighbours.nearest_others(scattered, 5, seed=0)
    assert max(sizes[1:]) <= 2 * 200


def test_equal_seeds_give_equal_neighbours_and_small_sets_are_exact(monkeypatch):
    vectors = unit(1500)
    whole = neighbours.nearest_others(vectors, 5, seed=0)
    assert all(map(torch.equal, whole, exact(vectors, 5)))
    monkeypatch.setattr(neighbours, "EXACT", 1000)
    first, again = (neighbours.nearest_others(vectors, 5, seed=3) for _ in range(2))
    assert all(map(torch.equal, first, again))
