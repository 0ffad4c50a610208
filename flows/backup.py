"""What a pass has made, handed to DVC's remote if there is one: a fresh machine begins with it."""

from pathlib import Path

from dvc.repo import Repo
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flows import process, stage, warm
from flows.stage import StageError

TIMEOUT_SECONDS = 21_600.0


def run(root: Path) -> None:
    """Pushes every result and DVC's memory of past runs, if the project has a default remote. A
    remote that is down is told of and stops nothing: the next pass pushes what is missing."""
    if remote(root) is None:
        return
    state = pushed(root, return_state=True)
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        get_run_logger().warning("DVC's remote does not have everything yet: %s", error)


def remote(root: Path) -> str | None:
    """The name of the project's default remote; None if it has none."""
    with Repo(str(root)) as repo:
        return repo.config["core"].get("remote")


@task(
    name="push",
    task_run_name="push",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=1,
    retry_delay_seconds=15,
)
def pushed(root: Path) -> None:
    """Pushes. Raises StageError with what DVC said last."""
    ended = process.run(
        warm.dvc("--wait-for-lock", "push", "--run-cache"),
        root=root,
        tell=get_run_logger().info,
        timeout=TIMEOUT_SECONDS,
        settings=stage.settings(""),
    )
    if ended.timed_out:
        raise StageError(f"dvc push was stopped after {TIMEOUT_SECONDS:g} seconds")
    if ended.status:
        raise StageError(stage.reason(ended.lines))
