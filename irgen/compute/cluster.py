"""Join a Ray cluster, check its nodes, and encode batches of images on them."""

import functools
import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import irgen
from irgen.compute.machine import Machine, prepare
from irgen.errors import ClusterError, ExtraError, IrgenError
from irgen.params import Compute

JOIN_SECONDS = 30.0  # a cluster that answers does so in two
NODE_SECONDS = 120.0  # a node that starts its first worker answers in ten
FILE_SECONDS = 10.0  # a network file system shows a new file to all nodes by then
RETRIES = "100"  # of a batch whose worker died: an image that kills all of them must have an end
PACKAGES = ("numpy", "pillow", "timm", "torch")  # their versions decide results
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TASK_MAX_RETRIES": RETRIES,
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_worker_niceness": "0",  # by default all other processes of the machine go first
}

Decode = Callable[[int], np.ndarray]
Encode = Callable[[int, np.ndarray], list[np.ndarray]]


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
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
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


def require_folder(folder: Path) -> None:
    """Raise ClusterError, naming the node, if one does not see the files in ``folder``, or has
    another version of a package that decides results."""
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    marker = folder / f".{uuid.uuid4().hex}.cluster.tmp"
    marker.touch()
    try:
        names = {}
        for node in ray.nodes():
            if node["Alive"]:
                on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = ray.remote(_find_fault).options(num_cpus=0, scheduling_strategy=on_node)
                names[task.remote(marker, _list_versions())] = node["NodeManagerAddress"]
        done, late = ray.wait(list(names), num_returns=len(names), timeout=NODE_SECONDS)
        faults = {names[task]: fault for task in done if (fault := _get(task))}
        faults |= {names[task]: "does not answer" for task in late}
    finally:
        marker.unlink(missing_ok=True)
    if faults:
        lines = "; ".join(f"{name} {fault}" for name, fault in sorted(faults.items()))
        raise ClusterError(f"nodes of the Ray cluster cannot do the work: {lines}")


def _find_fault(marker: Path, versions: dict[str, str]) -> str:
    """Return what keeps this node from the work; empty: nothing."""
    own = _list_versions()
    if others := [name for name in versions if own[name] != versions[name]]:
        pairs = ", ".join(f"{name} {own[name]} in place of {versions[name]}" for name in others)
        return f"has {pairs}: install the same packages on all nodes"
    end = time.monotonic() + FILE_SECONDS
    while not marker.exists():
        if time.monotonic() > end:
            return (
                f"does not see {marker.parent}: mount the project's folder at the same path on "
                "all nodes"
            )
        time.sleep(0.2)
    return ""


def _list_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def choose_machine(settings: Compute) -> Machine:
    """Return the machine that encoders of the cluster at ``compute.address`` run on. Raises
    ParamsError if it has no such device."""
    with connect(settings):
        ray = import_ray()
        has_gpu = settings.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1
        task = ray.remote(prepare).options(num_cpus=0, num_gpus=int(has_gpu))
        return _get(task.remote(settings))


def map_batches(
    numbers: Sequence[int],
    decode: Decode,
    load: Callable[[Machine], Encode],
    settings: Compute,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yield each of ``numbers`` with the arrays that ``load(machine)(number, decode(number))``
    returns, in any order. ``settings`` choose the machine of each worker.

    Tasks decode, one batch a task. Actors encode; each loads its encoder once, and takes a GPU or,
    for ``compute.device: cpu``, most of a core. As many as there are start at once, more on nodes
    that join. What a worker that
    died was doing is done again. Pixels wait in Ray's object store, of which decoding takes a part
    and then pauses. An IrgenError of a worker is raised here.
    """
    ray = import_ray()
    from ray.data import ActorPoolStrategy, DataContext, from_items

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, too
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    # On a processor alone both share each core, and so never wait for one another.
    shares = {"cuda": (1.0, 0.0, 1.0)}.get(settings.device, (0.25, 0.75, 0.0))
    decode_cpus, encode_cpus, encode_gpus = shares
    workers = int(ray.cluster_resources().get("GPU" if encode_gpus else "CPU", 1))
    rows = from_items([{"number": n} for n in numbers], override_num_blocks=len(numbers))
    decode_row = functools.partial(_decode, shared=ray.put(decode))
    pixels = rows.map_batches(decode_row, batch_size=1, num_cpus=decode_cpus)
    encoded = pixels.map_batches(
        _Encoder,
        batch_size=1,
        fn_constructor_args=[ray.put(load), settings],
        compute=ActorPoolStrategy(min_size=1, initial_size=max(1, min(workers, len(numbers)))),
        num_cpus=encode_cpus,
        num_gpus=encode_gpus,
    )
    with _own_errors():
        for batch in encoded.iter_batches(batch_size=None):
            number = int(batch.pop("number")[0])
            yield number, [batch[str(position)][0] for position in range(len(batch))]


class WorkerError(Exception):
    """Carry an IrgenError out of a worker: Ray Data adds to the message of what is raised there."""

    def __init__(self, error: object) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _carried_errors() -> Iterator[None]:
    try:
        yield
    except IrgenError as error:
        raise WorkerError(error) from None


def _decode(batch: dict[str, np.ndarray], shared: Any) -> dict[str, np.ndarray]:
    with _carried_errors():
        pixels = _fetch(shared)(int(batch["number"][0]))
    return {"number": batch["number"], "pixels": pixels[None]}


@functools.cache
def _fetch(shared: Any) -> Any:
    """Return a shared object, read once in the life of a worker."""
    return import_ray().get(shared)


class _Encoder:
    """Encode batches in an actor, which loads the encoder when it starts."""

    def __init__(self, load: Any, settings: Compute) -> None:
        self._encode: Encode = import_ray().get(load)(prepare(settings))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with _carried_errors():
            arrays = self._encode(int(batch["number"][0]), batch["pixels"][0])
        named = {str(position): array[None] for position, array in enumerate(arrays)}
        return {"number": batch["number"], **named}


def _get(task: Any) -> Any:
    with _own_errors():
        return import_ray().get(task)


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise the IrgenError of a worker as it was there, and ClusterError for errors of Ray."""
    ray = import_ray()
    try:
        yield
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        cause = cause.error if isinstance(cause, WorkerError) else cause
        if isinstance(cause, IrgenError):
            raise cause from None
        raise ClusterError(
            f"work on the Ray cluster failed: {read_reason(cause or error)}; see the logs of its "
            "workers below /tmp/ray"
        ) from error


def read_reason(error: object) -> str:
    """Return the last line of an error of Ray, which follows a traceback; its type if it has no
    words."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
