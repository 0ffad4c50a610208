"""Handle requests of API and pages alike: their service, who may write, clients that go away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request

from irgen.serve.content.writer import Writer
from irgen.serve.errors import ForbiddenError
from irgen.serve.service import Service

T = TypeVar("T")
LOOK_SECONDS = 0.25  # between looks whether the client is still there


def get_service(request: Request) -> Service:
    """Return the service that the app was made for."""
    return request.app.state.service


def get_writer(request: Request) -> Writer:
    """Return the service's writer. Raise ForbiddenError if the service, or this client, may only
    read."""
    if request.scope.get("irgen.scope") == "read":
        raise ForbiddenError(
            "this token may only read: ask for one that was made with irgen token NAME --write"
        )
    writer = get_service(request).writer
    if writer is None:
        raise ForbiddenError(
            "this service only reads: it runs with --read-only, or with --index over a release"
        )
    return writer


def may_write(request: Request) -> bool:
    """Tell whether this client may change the index."""
    try:
        get_writer(request)
    except ForbiddenError:
        return False
    return True


async def run_while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``, which is cancelled if the client leaves."""
    task = asyncio.create_task(work)
    while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
        if await request.is_disconnected():
            task.cancel()
            raise HTTPException(408, "the client has gone")  # who reads it is the log
    return task.result()
