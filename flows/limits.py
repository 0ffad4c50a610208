"""Limits on the tags of tasks: whether anybody has set one.

Prefect asks its server for a place before every task that has tags, and remembers for five seconds
that there is no limit on them. On SQLite the server turns such a request away whenever it is just
writing something else, and the task waits for two seconds, then four. Where nobody limits the tags
of a pass, which is asked once, that memory is renewed before each task.
"""

from collections.abc import Iterable, MutableMapping
from contextlib import nullcontext

import httpx
from prefect.client.orchestration import get_client
from prefect.concurrency import services

PAGE = 200  # the most that the server tells at once


def unlimited(tags: Iterable[str]) -> bool:
    """Whether no limit is set on any of the tags; False if the server does not answer, or says what
    this version does not understand."""
    wanted = {_name(tag) for tag in tags}
    found: set[str] = set()
    try:
        with get_client(sync_client=True) as client:
            while page := client.read_global_concurrency_limits(limit=PAGE, offset=len(found)):
                found |= {limit.name for limit in page}
                if len(page) < PAGE:
                    break
    except (httpx.HTTPError, RuntimeError, ValueError):
        return False
    return not wanted & found


def remember_none(tags: Iterable[str]) -> None:
    """Lets Prefect begin a task with these tags without asking, if it is within five seconds."""
    memory: MutableMapping[frozenset[str], bool] = getattr(services, "_no_limits_cache", {})
    with getattr(services, "_cache_lock", nullcontext()):
        memory[frozenset(map(_name, tags))] = True


def _name(tag: str) -> str:
    """What the server calls the limit on a tag."""
    return f"tag:{tag}"
