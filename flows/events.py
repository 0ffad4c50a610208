"""Events that the flows emit and that deployments wait for."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
from prefect.client.orchestration import get_client

from irgen.errors import IrgenError, redact

CHANGED = "irgen.source.changed"  # the source may have changed
UPDATED = "irgen.database.updated"  # another index is served
REJECTED = "irgen.release.rejected"  # the gate kept an index back
HELD = "irgen.update.held"  # the source lacks too much; nothing is removed without a person's word
DRIFTED = "irgen.tokenizer.drifted"  # new images are unlike those of the training
ATTEMPTS, PAUSE_SECONDS = 6, 5.0


class EventError(IrgenError):
    """Prefect's server did not accept an event."""


def emit(name: str, root: Path, payload: dict[str, Any], *, key: str) -> None:
    """Send an event to the server and return when the server has it.

    Two events with the same ``name`` and ``key`` count as one, so a repetition does no harm. Raises
    EventError if the server does not accept it within half a minute.
    """
    event = {
        "id": str(uuid5(NAMESPACE_URL, f"{name}/{key}")),
        "event": name,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {
            "prefect.resource.id": "irgen.database",
            "prefect.resource.name": root.name,
            "irgen.root": str(root),
        },
        "payload": redact(payload),
    }
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with get_client(sync_client=True) as client:
                client.request("POST", "/events", json=[event])
            return
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: it cannot be reached
            if attempt == ATTEMPTS:
                raise EventError(
                    f"event {name} was not taken by Prefect's server: {redact(str(error))}"
                ) from None
        time.sleep(PAUSE_SECONDS)
