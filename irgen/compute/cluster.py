"""Run work on a Ray cluster: the only module that imports ray."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import irgen
from irgen.errors import ClusterError, ExtraError
from irgen.params import Compute

JOIN_SECONDS = 30.0  # a cluster that answers does so in two


@contextmanager
def connect(settings: Compute) -> Iterator[None]:
    """Join the cluster at ``compute.address`` for a block; with no address, start one on this
    machine and stop it after the block. Within another such block, use its cluster.

    Workers get the code of irgen from this process. Raises ExtraError if ray is missing,
    ClusterError if there is no cluster at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    _join(ray, settings)
    try:
        yield
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """Import ray. Raises ExtraError, which names what to install, if it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError as error:
        raise ExtraError("ray", "ray", error) from error
    return ray


def _join(ray: Any, settings: Compute) -> None:
    if settings.address:
        _require_cluster(settings.address)
    try:
        ray.init(
            address=settings.address or "local",
            include_dashboard=None if settings.address else False,
            runtime_env={"py_modules": [irgen]},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = settings.address or "a cluster on this machine"
        raise ClusterError(f"compute.address: {where}: {error}") from None


def _require_cluster(address: str) -> None:
    """Raise ClusterError if no cluster answers: ``ray.init`` would wait for five minutes, and end
    this process."""
    program = str(Path(sys.executable).with_name("ray"))
    named = [] if address == "auto" else ["--address", address]
    try:
        subprocess.run(
            [program, "health-check", *named], capture_output=True, check=True, timeout=JOIN_SECONDS
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise ClusterError(
            f"compute.address: no Ray cluster answers at {address!r}; allowed: nothing (a cluster "
            "on this machine), auto (the one that this machine belongs to), or host:port of its "
            "head. Look at its state with: ray status"
        ) from None
