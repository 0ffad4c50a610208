"""How many requests a client may send, and what is not counted."""

import pytest

from irgen.errors import ServiceError
from irgen.serve.access import limits, tokens
from irgen.serve.access.limits import RateLimit, name_client, parse_rate
from irgen.serve.access.tokens import Tokens

from .test_access import ask, bearer


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


def test_a_burst_then_the_rate(clock):
    limit = RateLimit(20, clock)
    assert [limit.count("a") for _ in range(100)] == [0] * 100
    assert limit.count("a") == pytest.approx(0.05, abs=1e-3)
    assert limit.count("b") == 0  # another client
    for _ in range(100):
        clock.now += 0.0501
        assert limit.count("a") == 0
    assert limit.count("a") > 0
    clock.now += 60
    assert [limit.count("a") for _ in range(100)] == [0] * 100


def test_a_refused_request_delays_nothing(clock):
    limit = RateLimit(1, clock)
    waits = [limit.count("a") for _ in range(1000)]
    assert waits[:10] == [0] * 10 and all(0.9 < wait < 1.1 for wait in waits[10:])
    clock.now += 1
    assert limit.count("a") == 0


def test_clients_without_number_take_no_memory_without_end(clock, monkeypatch):
    monkeypatch.setattr(limits, "MOST_CLIENTS", 50)
    limit = RateLimit(1, clock)
    for number in range(1000):
        limit.count(str(number))
    assert len(limit._times) == 50


@pytest.mark.parametrize("text", ["", "20", "0/s", "-1/s", "20/day", "1e9/s", "20/s/s"])
def test_a_rate_that_is_none_is_refused(text):
    with pytest.raises(ServiceError, match="20/s"):
        parse_rate(text)


def test_a_customer_s_addresses_of_ipv6_are_one_client():
    assert name_client("2001:db8::1") == name_client("2001:db8::ffff:1")
    assert name_client("2001:db8:0:1::1") != name_client("2001:db8::1")
    assert len(name_client("x" * 999)) == 50


def test_past_its_rate_a_client_is_asked_to_wait_and_others_are_not(running, tmp_path):
    path = tmp_path / "tokens.json"
    shop, other = (bearer(tokens.create_token(path, name)) for name in ("shop", "other"))
    options = {"tokens": Tokens(path), "rate": RateLimit(1e-3)}

    def get(address, token=shop):
        return ask(running, address, options, headers={"authorization": token})

    assert [get("/v1/items").status_code for _ in range(11)] == [200] * 10 + [429]
    refused = get("/v1/items")
    assert int(refused.headers["retry-after"]) > 900 and "too many" in refused.json()["detail"]
    for address in ("/healthz", "/readyz", "/static/page.js", "/v1/thumbnail?id=dogs/03.png"):
        assert get(address).status_code == 200, address
    assert get("/v1/items", other).status_code == 200


def test_guesses_of_a_token_are_counted_by_address(running, tmp_path):
    options = {"tokens": Tokens(tmp_path / "tokens.json"), "rate": RateLimit(1e-3)}
    statuses = [
        ask(running, "/v1/items", options, headers={"authorization": bearer(str(n))}).status_code
        for n in range(12)
    ]
    assert statuses == [401] * 10 + [429] * 2
