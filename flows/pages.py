"""What a flow run leaves to be read in Prefect's pages: tables, Markdown, a link.

A page that the server does not take is told of in the log and ends nothing.
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

TELLING = ("precision/10", "hit/10", "map/R")  # of every method, the metrics that say most

Log = logging.Logger | logging.LoggerAdapter


def table(key: str, rows: list[dict[str, Any]], description: str, log: Log) -> None:
    """A table artifact."""
    _leave(log, key, lambda: create_table_artifact(rows, key=key, description=description))


def markdown(key: str, text: str, description: str, log: Log) -> None:
    """A Markdown artifact."""
    _leave(log, key, lambda: create_markdown_artifact(text, key=key, description=description))


def link(key: str, address: str, text: str, description: str, log: Log) -> None:
    """A link artifact."""
    _leave(
        log,
        key,
        lambda: create_link_artifact(address, link_text=text, key=key, description=description),
    )


def _leave(log: Log, key: str, make: Callable[[], Any]) -> None:
    try:
        make()
    except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: it cannot be reached
        log.warning("the artifact %s could not be left on the server: %s", key, error)


def compared(now: Mapping[str, float], before: Mapping[str, float], what: str) -> str:
    """A Markdown table of metrics: before, now and by how much they moved; those that tell most
    first, then those that moved.

    >>> print(compared({"P": 0.5, "m/hit/10": 1.0}, {"P": 0.25, "m/hit/10": 1.0}, "the last"))
    | metric | the last | now | change |
    | --- | ---: | ---: | ---: |
    | m/hit/10 | 1.0000 | 1.0000 | = |
    | P | 0.2500 | 0.5000 | **+0.2500** |
    """
    names = sorted(
        now, key=lambda name: (not name.endswith(TELLING), not _moved(now, before, name), name)
    )
    rows = [f"| metric | {what} | now | change |", "| --- | ---: | ---: | ---: |"]
    for name in names:
        old = f"{before[name]:.4f}" if name in before else "–"
        change = "new" if name not in before else "="
        if _moved(now, before, name):
            change = f"**{now[name] - before[name]:+.4f}**"
        rows.append(f"| {name} | {old} | {now[name]:.4f} | {change} |")
    return "\n".join(rows)


def _moved(now: Mapping[str, float], before: Mapping[str, float], name: str) -> bool:
    return name in before and f"{now[name]:.4f}" != f"{before[name]:.4f}"
