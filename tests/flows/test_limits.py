"""Prefect is asked for a place before a stage only if somebody has limited one of its tags."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.concurrency import services
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import limits
from flows.build import build

from .conftest import PrefectServer, Toy, until


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names that Prefect's server is asked for a place with; what Prefect remembers of other
    tests, which it does for five seconds, is forgotten."""
    services._no_limits_cache.clear()
    found: list[list[str]] = []
    ask = PrefectClient.increment_concurrency_slots_with_lease

    async def noted(client: PrefectClient, names: list[str], **others: object) -> object:
        found.append(names)
        return await ask(client, names=names, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(PrefectClient, "increment_concurrency_slots_with_lease", noted)
    return found


@pytest.fixture
def limited(prefect_server: PrefectServer) -> Iterator[str]:
    """A tag of a stage, of which one task may run at a time."""
    made = prefect_server.ask("/v2/concurrency_limits/", {"name": "tag:quick", "limit": 1})
    yield "quick"
    address = f"{prefect_server.uri}/v2/concurrency_limits/{made['id']}"

    def deleted() -> bool:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=20)
        except urllib.error.HTTPError as error:
            if error.code != 503:  # its database is locked just now
                raise
            return False
        return True

    until(deleted, 20, "the limit stays")


def test_a_limit_is_seen_whatever_it_is_on(prefect_server: PrefectServer, limited: str) -> None:
    assert not limits.unlimited(["slow", limited])
    assert limits.unlimited(["slow"]) and limits.unlimited([])


def test_without_a_limit_no_stage_asks(
    prefect_server: PrefectServer, toy: Toy, asked: list[list[str]]
) -> None:
    build(str(toy.root))
    assert asked == []


def test_with_a_limit_every_stage_asks(
    prefect_server: PrefectServer, toy: Toy, limited: str, asked: list[list[str]]
) -> None:
    build(str(toy.root))
    assert [f"tag:{limited}"] in asked


def test_a_server_that_is_down_is_not_taken_for_one_without_limits() -> None:
    nowhere = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(nowhere):
        assert not limits.unlimited(["quick"])
