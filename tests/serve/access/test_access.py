"""Who is let in, and what a stranger cannot do."""

import base64
import hashlib
import json
import logging

import httpx
import pytest

from irgen.serve.access import middleware, tokens
from irgen.serve.access.tokens import Tokens
from irgen.serve.app import create_app

from ...waiting import wait_until


@pytest.fixture
def token_file(tmp_path):
    return tmp_path / "serve-tokens.json"


def bearer(token):
    return f"Bearer {token}"


def test_a_token_is_known_by_its_hash_alone_and_ends_without_a_restart(token_file):
    accepted = Tokens(token_file)
    assert accepted.find(bearer("")) is None
    first = tokens.create_token(token_file, "shop")
    assert first not in token_file.read_text()
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert accepted.find(bearer(first)).name == "shop"
    basic = base64.b64encode(f"anyone:{first}".encode()).decode()
    assert accepted.find(f"Basic {basic}").name == "shop"
    second = tokens.create_token(token_file, "shop")
    assert accepted.find(bearer(first)) is None
    assert accepted.find(bearer(second)).name == "shop"
    tokens.delete_token(token_file, "shop")
    assert accepted.find(bearer(second)) is None


def test_a_token_may_read_alone_unless_it_was_made_to_write(token_file):
    reader = tokens.create_token(token_file, "shop")
    writer = tokens.create_token(token_file, "editor", "write")
    accepted = Tokens(token_file)
    assert accepted.find(bearer(reader)).scope == "read"
    assert accepted.find(bearer(writer)).scope == "write"
    old = json.dumps({"shop": hashlib.sha256(b"of an earlier version").hexdigest()})
    token_file.write_text(old)
    assert accepted.find(bearer("of an earlier version")).scope == "read"
    tokens.create_token(token_file, "editor", "write")  # leaves the others as they are
    assert accepted.find(bearer("of an earlier version")).name == "shop"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic", "Basic %%", "Basic YQ==", "Digest x"]
)
def test_whatever_is_no_token_is_refused(token_file, header):
    tokens.create_token(token_file, "shop")
    assert Tokens(token_file).find(header) is None


def ask(running, path, app_options, **request):
    """Send a request to another application around the running service."""
    app = create_app(running.service, **app_options)
    transport = httpx.ASGITransport(app=app)

    async def send():
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, **request)

    import asyncio

    return asyncio.run(send())


def test_beyond_this_machine_everything_but_health_needs_a_token(running, token_file):
    token = tokens.create_token(token_file, "shop")
    options = {"tokens": Tokens(token_file)}
    for path in ("/", "/v1/info", "/v1/items", "/metrics", "/static/page.js", "/v1/openapi.json"):
        answer = ask(running, path, options)
        assert answer.status_code == 401 and "token" in answer.json()["detail"], path
        assert answer.headers["www-authenticate"].startswith("Basic")
    assert ask(running, "/healthz", options).status_code == 200
    allowed = {"authorization": bearer(token)}
    assert ask(running, "/v1/info", options, headers=allowed).status_code == 200


def test_a_page_of_another_name_cannot_reach_the_service_through_a_browser(running):
    assert running.get("/v1/info", headers={"host": "evil.example"}).status_code == 400
    assert running.get("/v1/info", headers={"host": "localhost:1"}).status_code == 200


def test_no_other_origin_may_read_an_answer(running):
    answer = running.get("/v1/info", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/v1/picture?id=../../etc/passwd",
     "/v1/picture?id=/etc/passwd", "/upload?q=../../secret"],
)  # fmt: skip
def test_no_path_leads_out_of_the_data(running, path):
    assert running.get(path).status_code == 404


def test_the_access_log_is_json_without_secrets(running, caplog, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "a-secret-of-the-environment")
    caplog.set_level(logging.INFO, "irgen.access")
    answer = running.get("/v1/items", params={"filter": "id = 'a-secret-of-the-environment'"})
    request = answer.headers["x-request-id"]

    def find_records():
        return [record for record in caplog.records if record.fields["request"] == request]

    wait_until(find_records)  # a request is noted after its answer has gone
    line = middleware.JsonFormatter().format(find_records()[0])
    fields = json.loads(line)
    assert fields["path"] == "/v1/items" and fields["status"] == 200
    assert "a-secret" not in line


def test_a_file_of_tokens_that_is_damaged_lets_nobody_in(running, token_file):
    token = tokens.create_token(token_file, "shop")
    accepted = Tokens(token_file)
    token_file.write_text("{")
    allowed = {"authorization": bearer(token)}
    assert ask(running, "/v1/info", {"tokens": accepted}, headers=allowed).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "https://name.of.the.proxy"}, 303),
        ({"sec-fetch-site": "none"}, 303),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost", "host": "localhost"}, 303),
    ],
)
def test_a_page_of_another_site_cannot_send_a_picture(running, png, headers, status):
    files = {"image": ("a.png", png(1))}
    answer = running.post("/search", files=files, headers=headers, follow_redirects=False)
    assert answer.status_code == status


def test_a_fault_is_logged_under_the_id_that_the_client_has(running, caplog, monkeypatch):
    monkeypatch.setattr(running.service.items, "list", lambda **_: 1 / 0)
    answer = running.get("/v1/items")
    assert answer.status_code == 500 and "ZeroDivision" not in answer.text
    (record,) = [r for r in caplog.records if r.getMessage() == "a request failed"]
    line = json.loads(middleware.JsonFormatter().format(record))
    assert line["request"] == answer.headers["x-request-id"]
    assert "ZeroDivisionError" in line["exception"]
