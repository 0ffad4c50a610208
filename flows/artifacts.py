"""Show results in Prefect's pages: artifacts (tables, Markdown, links), and names of flow runs.

If the server does not accept one, the flow logs that and goes on.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

HEADLINES = ("precision/10", "hit/10", "map/R", "agreement/10", "finds_copies")  # of every method
SERVED = "index"  # the method whose metrics come first

Log = logging.Logger | logging.LoggerAdapter


def create_table(key: str, rows: list[dict[str, Any]], description: str, log: Log) -> None:
    """Create a table artifact."""
    _create(log, key, lambda: create_table_artifact(rows, key=key, description=description))


def create_markdown(key: str, text: str, description: str, log: Log) -> None:
    """Create a Markdown artifact."""
    _create(log, key, lambda: create_markdown_artifact(text, key=key, description=description))


def create_link(key: str, address: str, text: str, description: str, log: Log) -> None:
    """Create a link artifact."""
    _create(
        log,
        key,
        lambda: create_link_artifact(address, link_text=text, key=key, description=description),
    )


def name_run(*parts: str, log: Log) -> None:
    """Name this flow run by its flow and what it does: ``update · 40 new``."""
    run, name = flow_run.id, " · ".join(filter(None, [flow_run.flow_name, *parts]))
    if run is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_name(UUID(run), name)
    except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: it cannot be reached
        log.warning("the flow run could not be named %r: %s", name, error)


def _create(log: Log, key: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: it cannot be reached
        log.warning("the artifact %s could not be created on the server: %s", key, error)


def compare_metrics(now: Mapping[str, float], before: Mapping[str, float], title: str) -> str:
    """Return a Markdown table of each method's HEADLINES: before (the column ``title``), now, and
    the change. The served index comes first.

    >>> now, before = {"index/hit/10": 1.0, "index/map/R": 0.5}, {"index/hit/10": 0.75}
    >>> print(compare_metrics(now, before, "last"))
    | method | metric | last | now | change |
    | --- | --- | ---: | ---: | ---: |
    | index | hit@10 | 0.750 | 1.000 | **+0.250** |
    | index | map@R | – | 0.500 | new |
    """
    names = [name for name in now if name.endswith(HEADLINES)]
    rows = [f"| method | metric | {title} | now | change |", "| --- | --- | ---: | ---: | ---: |"]
    ranks = {metric: rank for rank, metric in enumerate(HEADLINES)}
    parts = [name.partition("/")[::2] for name in names]
    for method, metric in sorted(parts, key=lambda p: (p[0] != SERVED, p[0], ranks.get(p[1], 9))):
        name = f"{method}/{metric}"
        old = f"{before[name]:.3f}" if name in before else "–"
        change = "new" if name not in before else "="
        if name in before and f"{now[name]:.3f}" != old:
            change = f"**{now[name] - before[name]:+.3f}**"
        cells = (
            method.replace("_", " "),
            metric.replace("/", "@"),
            old,
            f"{now[name]:.3f}",
            change,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
