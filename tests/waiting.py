"""Wait for what another thread or process does."""

import time
from collections.abc import Callable

import pytest

SECONDS = 60.0


def wait_until(condition: Callable[[], object], failure: str = "it did not come about") -> None:
    """Return when the condition holds; fail if it does not within a minute."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{failure} within {SECONDS:g} s")
        time.sleep(0.05)
