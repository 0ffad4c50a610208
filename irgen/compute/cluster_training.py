"""Train on a Ray cluster: Ray Train runs the processes, on one node or several."""

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from irgen.compute.cluster import connect, import_ray, read_reason, require_folder
from irgen.compute.world import Log, Work
from irgen.errors import ClusterError, IrgenError, IrgenWarning
from irgen.params import Compute

TRIES = 4  # of a training that loses a process
WAIT_SECONDS = 7 * 86_400  # of a process for another, such as the first one while it validates


def train(work: Work, arguments: Sequence[Any], settings: Compute, log: Log) -> dict[str, float]:
    """Return the metrics of ``work(*arguments, log)``, which runs in ``compute.workers`` processes
    of the cluster (0: one for each of its GPUs, or one). The first one's metrics and log count.

    If a process or its node is lost, all begin again, at most TRIES times; work goes on after what
    it has saved. Raises ClusterError if the cluster has too few processors, GPUs or nodes; the
    IrgenError of a process.
    """
    with connect(settings):
        ray = import_ray()
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        count, has_gpus = _count_processes(ray.cluster_resources(), settings)
        require_folder(Path.cwd())
        node = ray.get_runtime_context().get_node_id()
        on_own_node = NodeAffinitySchedulingStrategy(node, soft=False)  # others may be lost
        queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_own_node})
        config = {"work": work, "arguments": arguments, "queue": queue, "folder": Path.cwd()}
        with ThreadPoolExecutor(1, thread_name_prefix="training-log") as pool:
            listening = pool.submit(_listen, queue, log)
            try:
                _train_until_done(config, count, has_gpus)
            finally:
                queue.put(None)
            return listening.result()


def _count_processes(resources: Mapping[str, float], settings: Compute) -> tuple[int, bool]:
    """Return the number of processes of a training, and whether each has a GPU."""
    gpus = 0 if settings.device == "cpu" else int(resources.get("GPU", 0))
    count, most = settings.workers or gpus or 1, gpus or int(resources.get("CPU", 0))
    if count > most:
        raise ClusterError(
            f"compute.workers: {count} processes, but the cluster has {most} "
            f"{'GPUs' if gpus else 'processors'}: let nodes join it, or set compute.workers to less"
        )
    return count, gpus > 0


def _listen(queue: Any, log: Log) -> dict[str, float]:
    """Log the rows that come from the first process, and return its result: a row without a
    step."""
    result: dict[str, float] = {}
    for row, step in iter(queue.get, None):
        if step is None:
            result = row
        else:
            log(row, step)
    return result


def _train_until_done(config: dict[str, Any], count: int, has_gpus: bool) -> None:
    """Run ``_train`` until it ends, or fails for a reason that does not go away."""
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
    for attempt in range(1, TRIES + 1):
        with TemporaryDirectory(prefix="irgen-train-") as storage:
            trainer = TorchTrainer(
                _train,
                train_loop_config=config,
                torch_config=TorchConfig(backend=backend, timeout_s=WAIT_SECONDS),
                scaling_config=ScalingConfig(num_workers=count, use_gpu=has_gpus),
                run_config=RunConfig(storage_path=storage),
            )
            try:
                trainer.fit()
                return
            except TrainingFailedError as error:
                failures = getattr(error, "worker_failures", {}).values()
                if own := [failure for failure in failures if isinstance(failure, IrgenError)]:
                    raise own[0] from None
                reason = read_reason(error)
                if attempt == TRIES:
                    raise ClusterError(
                        f"compute.engine: ray: the training failed {TRIES} times: {reason}; see "
                        "the logs of its processes below /tmp/ray"
                    ) from error
                warnings.warn(
                    f"the training on the cluster begins again: {reason}",
                    IrgenWarning,
                    stacklevel=2,
                )


def _train(config: dict[str, Any]) -> None:
    """Do the work as one of the processes of a training."""
    from ray.train import get_context

    os.chdir(config["folder"])
    queue = config["queue"] if get_context().get_world_rank() == 0 else None

    def log(row: dict[str, float], step: int | None) -> None:
        if queue is not None:
            queue.put((row, step))

    log(config["work"](*config["arguments"], log), None)
