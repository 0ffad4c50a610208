"""The simulation of shards: how first codes are dealt out, and which shards a query asks."""

import importlib.util

import pytest
import torch


@pytest.fixture(scope="module")
def sharding(root):
    spec = importlib.util.spec_from_file_location("sharding", root / "benchmarks" / "sharding.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "benchmarks")
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def searches(sharding):
    """Two queries, four first codes: the first query is sure, the second is not."""
    return sharding.Searches(
        first_codes=torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.4, 0.3, 0.2, 0.1]]),
        own=torch.tensor([0, 3]),
        hits=torch.tensor([[0, 0, 1], [0, 3, -1]]),
        relevant=torch.tensor([[True, True, False], [False, True, False]]),
        images=torch.tensor([40, 30, 20, 10]),
    )


def test_shards_hold_about_as_many_images(sharding):
    images = torch.randint(1, 100, (256,), generator=torch.Generator().manual_seed(0))
    owners = sharding.deal(images, 16)
    sizes = torch.zeros(16, dtype=torch.int64).scatter_add_(0, owners, images)
    assert sizes.sum() == images.sum() and sizes.max() <= 1.05 * sizes.min()


def test_a_query_asks_the_likeliest_shards_and_that_of_its_own_code(sharding, searches):
    owners = torch.arange(4)  # a shard each
    asked = sharding.choose_shards(searches, owners, 4, 0.5)
    assert asked.tolist() == [[True, False, False, False], [True, True, False, True]]
    everything = sharding.choose_shards(searches, owners, 4, 1.0)
    assert everything.tolist() == [[True, True, False, False], [True] * 4]


def test_hits_are_kept_if_their_shard_is_asked(sharding, searches):
    row = sharding.simulate("test", searches, 4, 0.5)
    assert row.asked == 2 and row.share_asked == pytest.approx((0.4 + 0.8) / 2)
    assert row.kept == pytest.approx(4 / 5)  # not the first query's third
    assert row.precision == row.precision_whole == pytest.approx(3 / 6)
    assert sharding.simulate("test", searches, 4, 1.0).kept == 1


def test_one_shard_for_each_first_code_is_the_most(sharding, searches):
    rows = list(sharding.simulate_all("test", searches))
    assert {row.shards for row in rows} == {4}
    assert "| test (100)" in sharding.render(rows)
