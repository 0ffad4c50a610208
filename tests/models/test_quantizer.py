import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.models import quantizer


def vectors(count: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_assign_finds_the_nearest_centre(count, size, seed):
    points, centres = vectors(count, seed=seed), vectors(size, seed=seed + 100)
    indices, distances = quantizer.assign(points, centres)
    every = torch.cdist(points.double(), centres.double()).square()
    torch.testing.assert_close(distances.double(), every.min(1).values, atol=1e-4, rtol=1e-4)
    chosen = every.gather(1, indices[:, None]).flatten()
    torch.testing.assert_close(chosen, every.min(1).values, atol=1e-4, rtol=1e-4)


def test_a_tie_goes_to_the_lowest_entry():
    indices, _ = quantizer.assign(torch.zeros(1, 2), torch.tensor([[1.0, 0], [0, 1], [-1, 0]]))
    assert indices.tolist() == [0]


def test_codes_do_not_depend_on_the_other_vectors():
    points = vectors(700)
    codebooks, _ = quantizer.fit(points, None, (3, 16), 5, seed=0)
    together = quantizer.encode(points, codebooks)
    alone = torch.cat([quantizer.encode(points[i : i + 1], codebooks) for i in range(0, 700, 7)])
    assert torch.equal(together[::7], alone)
    assert torch.equal(together[13:200], quantizer.encode(points[13:200], codebooks))


def test_decode_inverts_encode_where_every_vector_is_an_entry():
    points = vectors(12)
    codebooks, _ = quantizer.fit(points, None, (1, 12), 10, seed=1)
    rebuilt = quantizer.decode(quantizer.encode(points, codebooks), codebooks)[:, -1]
    torch.testing.assert_close(rebuilt, points)


def test_each_level_lowers_the_residual():
    points = vectors(500)
    codebooks, _ = quantizer.fit(points, None, (4, 16), 10, seed=0)
    prefixes = quantizer.decode(quantizer.encode(points, codebooks), codebooks)
    errors = (points[:, None] - prefixes).square().sum(-1).mean(0)
    assert (errors.diff() < 0).all()


def test_going_on_from_codebooks_never_fits_worse():
    points = vectors(400)
    first, _ = quantizer.fit(points, None, (1, 16), 1, seed=0)
    further, _ = quantizer.fit(points, first, (1, 16), 20, seed=0)
    worse, better = (quantizer.assign(points, c[0])[1].mean() for c in (first, further))
    assert better < worse


def test_a_dead_entry_restarts_at_a_far_vector():
    points = torch.cat([torch.zeros(50, 2), torch.full((1, 2), 10.0)])
    starts = torch.tensor([[0.0, 0.0], [500.0, 500.0], [500.0, 501.0]])
    centres, restarts = quantizer.kmeans(points, starts[:2], 5, torch.Generator().manual_seed(0))
    assert restarts == 1
    assert sorted(map(tuple, centres.tolist())) == [(0.0, 0.0), (10.0, 10.0)]


def test_the_same_seed_gives_the_same_codebooks_and_another_seed_others():
    points = vectors(300)
    one, again, other = (quantizer.fit(points, None, (2, 8), 5, seed=s)[0] for s in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_up_to_the_sample_size_every_vector_takes_every_step(monkeypatch):
    points, generator = vectors(300), torch.Generator()
    starts = quantizer.kmeans_start(points, 8, generator.manual_seed(5))
    expected = quantizer.kmeans(points, starts, 9, generator)
    monkeypatch.setattr(quantizer, "SAMPLE", 300)
    centres, restarts = quantizer.fit_centres(points, None, 8, 9, generator.manual_seed(5))
    assert torch.equal(centres, expected[0])
    assert restarts == expected[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_fits_almost_as_well_as_all_vectors(seed, monkeypatch):
    points = vectors(8000, seed=seed)

    def error() -> float:
        codebooks, _ = quantizer.fit(points, None, (3, 16), 10, seed)
        rebuilt = quantizer.decode(quantizer.encode(points, codebooks), codebooks)[:, -1]
        return float((points - rebuilt).square().sum(1).mean())

    whole = error()
    monkeypatch.setattr(quantizer, "SAMPLE", 2000)
    monkeypatch.setattr(quantizer, "PER_CENTRE", 0)
    assert error() < 1.03 * whole


def test_a_centre_has_enough_vectors_of_the_sample(monkeypatch):
    monkeypatch.setattr(quantizer, "SAMPLE", 100)
    monkeypatch.setattr(quantizer, "PER_CENTRE", 50)
    sizes, start = [], quantizer.kmeans_start

    def counting(points, count, generator):
        sizes.append(len(points))
        return start(points, count, generator)

    monkeypatch.setattr(quantizer, "kmeans_start", counting)
    for count in (1, 4, 8):
        quantizer.fit_centres(vectors(300), None, count, 2, torch.Generator().manual_seed(0))
    assert sizes == [100, 200, 300]


def test_after_the_sample_each_centre_is_the_mean_of_all_its_vectors(monkeypatch):
    monkeypatch.setattr(quantizer, "SAMPLE", 500)
    monkeypatch.setattr(quantizer, "PER_CENTRE", 0)
    labels = torch.arange(4000) % 4
    points = 20 * vectors(4, seed=1)[labels] + vectors(4000)
    centres, _ = quantizer.fit_centres(points, None, 4, 10, torch.Generator().manual_seed(0))
    means = torch.stack([points[labels == label].mean(0) for label in range(4)])
    torch.testing.assert_close(centres[quantizer.assign(means, centres)[0]], means)


def test_identical_vectors_do_not_crash_the_starts():
    codebooks, _ = quantizer.fit(torch.ones(20, 4), None, (3, 8), 5, seed=0)
    codes = quantizer.encode(torch.ones(20, 4), codebooks)
    assert len(codes.unique(dim=0)) == 1
    assert codebooks.isfinite().all()


def test_fewer_vectors_than_codes_is_refused():
    with pytest.raises(AssertionError, match="more codes"):
        quantizer.fit(vectors(5), None, (1, 8), 5, seed=0)


def test_usage_of_a_hand_made_table_of_codes():
    codes = torch.tensor([[0, 1], [0, 1], [1, 0], [1, 1]])
    assert quantizer.usage(codes, 4) == pytest.approx(
        {
            "codes_used/level_1": 2,
            "perplexity/level_1": 2,
            "codes_used/level_2": 2,
            "perplexity/level_2": 4 / 3**0.75,
            "collision_share": 0.5,
            "largest_bucket": 2,
        }
    )


def test_residuals_are_those_of_all_rows_at_once_whichever_are_taken() -> None:
    points, books = vectors(300), vectors(24).view(3, 8, -1)
    residuals, whole = quantizer.Residuals(points), points
    for centres in books:
        residuals = residuals.quantise(centres)
        whole = whole - centres[quantizer.assign(whole, centres)[0]]
    assert len(residuals) == 300 and torch.equal(residuals[:], whole)
    for rows in (slice(7, 19), torch.tensor([5, 5, 299]), 12):
        assert torch.equal(residuals[rows], whole[rows])
    assert torch.equal(torch.stack(residuals.codes, 1), quantizer.encode(points, books))


def test_results_do_not_depend_on_the_rows_in_memory_at_once(monkeypatch) -> None:
    points, results = vectors(1000), []
    for rows in (64 * quantizer.BLOCK, 2 * quantizer.BLOCK):
        monkeypatch.setattr(quantizer, "ROWS", rows)
        codebooks, restarts = quantizer.fit(points, None, (3, 16), 6, seed=2)
        results.append((codebooks, quantizer.encode(points, codebooks), restarts))
    assert all(
        torch.equal(one, other) for one, other in zip(*(r[:2] for r in results), strict=True)
    )
    assert results[0][2] == results[1][2]


def test_of_many_vectors_a_block_or_the_sample_is_taken_at_once(monkeypatch) -> None:
    points, counts, take = vectors(3000), [], quantizer.Residuals.__getitem__

    def counted(residuals: quantizer.Residuals, rows: torch.Tensor | slice | int) -> torch.Tensor:
        counts.append(take(residuals, rows)[None].shape[-2])
        return take(residuals, rows)

    monkeypatch.setattr(quantizer.Residuals, "__getitem__", counted)
    monkeypatch.setattr(quantizer, "SAMPLE", 200)
    monkeypatch.setattr(quantizer, "PER_CENTRE", 10)
    monkeypatch.setattr(quantizer, "ROWS", 2 * quantizer.BLOCK)
    codebooks, _ = quantizer.fit(points, None, (3, 16), 4, seed=0)
    quantizer.encode(points, codebooks)
    assert max(counts) == 2 * quantizer.BLOCK
