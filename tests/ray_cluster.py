"""Ray clusters on this machine for tests: they get the code under test, and end with it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

import irgen
from irgen.compute import cluster


@contextmanager
def start_cluster(cpus: int, *modules: ModuleType) -> Iterator[Any]:
    """Start a cluster whose workers know these test modules, and yield a handle to add nodes."""
    pytest.importorskip("ray")
    ray = cluster.import_ray()
    nodes = start_head(cpus)
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        ray.init(address=nodes.address, log_to_driver=False, runtime_env={"py_modules": [irgen]})
        yield nodes
    finally:
        for module in modules:
            ray.cloudpickle.unregister_pickle_by_value(module)
        ray.shutdown()
        nodes.shutdown()


def start_head(cpus: int, tries: int = 4) -> Any:
    """Start the first node. Ray gives it thirty seconds, which may be too few on a busy machine."""
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    try:
        nodes.add_node(num_cpus=cpus)
    except Exception:  # Ray has no type for it
        nodes.shutdown()
        if tries == 1:
            raise
        return start_head(cpus, tries - 1)
    return nodes


def this_module(name: str) -> ModuleType:
    """Return the module of a test file, which no worker can import."""
    return sys.modules[name]
