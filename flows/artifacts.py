"""Create artifacts, which Prefect shows in its pages: tables, Markdown and links.

If the server does not accept one, the flow logs that and goes on.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

HEADLINES = ("precision/10", "hit/10", "map/R")  # shown first, of every method

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


def _create(log: Log, key: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: it cannot be reached
        log.warning("the artifact %s could not be created on the server: %s", key, error)


def compare_metrics(now: Mapping[str, float], before: Mapping[str, float], title: str) -> str:
    """Return a Markdown table of metrics: before (the column ``title``), now, and the change. First
    come HEADLINES, then metrics that changed.

    >>> print(compare_metrics({"P": 0.5, "m/hit/10": 1.0}, {"P": 0.25, "m/hit/10": 1.0}, "last"))
    | metric | last | now | change |
    | --- | ---: | ---: | ---: |
    | m/hit/10 | 1.0000 | 1.0000 | = |
    | P | 0.2500 | 0.5000 | **+0.2500** |
    """
    names = sorted(
        now, key=lambda name: (not name.endswith(HEADLINES), not _moved(now, before, name), name)
    )
    rows = [f"| metric | {title} | now | change |", "| --- | ---: | ---: | ---: |"]
    for name in names:
        old = f"{before[name]:.4f}" if name in before else "–"
        change = "new" if name not in before else "="
        if _moved(now, before, name):
            change = f"**{now[name] - before[name]:+.4f}**"
        rows.append(f"| {name} | {old} | {now[name]:.4f} | {change} |")
    return "\n".join(rows)


def _moved(now: Mapping[str, float], before: Mapping[str, float], name: str) -> bool:
    return name in before and f"{now[name]:.4f}" != f"{before[name]:.4f}"
