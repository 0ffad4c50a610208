"""Encoding on a Ray cluster gives what encoding here gives."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from irgen.compute import cluster
from irgen.encoding.encode import Encoding, encode_summaries
from irgen.encoding.views import encode_views

from . import conftest
from .conftest import CHANGES, encoder, hashes


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """A cluster of two processors on this machine, of which these tests' modules are known."""
    ray = pytest.importorskip("ray")
    import irgen

    cluster.import_ray()
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"py_modules": [irgen]},
    )
    ray.cloudpickle.register_pickle_by_value(conftest)
    yield
    ray.cloudpickle.unregister_pickle_by_value(conftest)
    ray.shutdown()


def on_cluster(encoding: Encoding) -> Encoding:
    """Return the encoding of the same images on the cluster, with a cache of its own."""
    settings = dataclasses.replace(encoding.settings, engine="ray")
    cache = encoding.cache.with_name("cluster-cache")
    return dataclasses.replace(encoding, settings=settings, cache=cache)


def test_features_and_views_are_those_of_this_machine_to_the_last_bit(encoding, two_workers):
    model, image_hashes, there = encoder(), hashes(encoding), on_cluster(encoding)
    summaries = encode_summaries(model, image_hashes, there)
    assert np.array_equal(summaries, encode_summaries(model, image_hashes, encoding))
    here, views = (encode_views(model, image_hashes, CHANGES, 0, e) for e in (encoding, there))
    assert np.array_equal(views.summaries, here.summaries)
    assert np.array_equal(views.tokens, here.tokens)
