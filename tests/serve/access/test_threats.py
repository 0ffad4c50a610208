"""Attacks on a service that may change its index: requests by strangers, by pages of other sites,
and by clients that may write."""

import io
import json
import logging
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from irgen.serve.access import middleware, tokens
from irgen.serve.access.tokens import Tokens
from irgen.serve.app import create_app

from ...waiting import wait_until
from ..conftest import serve_writable
from .test_access import bearer

JSON = {"content-type": "application/json"}
PART = b'--a\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\nx\r\n'
MULTIPART = {"content-type": "multipart/form-data; boundary=a"}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, make_project, run_service):
    """Yield the service that receives all attacks of this file, one after the other."""
    root = make_project(tmp_path_factory.mktemp("attacked"))
    with serve_writable(run_service, root) as running:
        yield running


def request(running, method, path, **options):
    return httpx.request(method, running.url + path, timeout=60, **options)


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("POST", "/v1/search", {"headers": {"origin": "http://["}, "json": {}}),
        ("POST", "/v1/search", {"headers": JSON, "content": b'{"queries":[{"id":"\\ud800"}]}'}),
        ("POST", "/v1/search", {"headers": JSON, "content": b'{"queries":[{"id":"\\u0000"}]}'}),
        ("POST", "/v1/search", {"headers": JSON, "content": b'{"queries":[{"url":"\\ud800"}]}'}),
        ("POST", "/v1/search", {"headers": JSON, "content": b'{"queries":[{"image":"\\ud800"}]}'}),
        ("POST", "/v1/search", {"headers": JSON, "content": b"[" * 100_000}),
        ("POST", "/v1/search", {"headers": JSON, "content": b"\xff\xfe"}),
        ("POST", "/v1/search", {"headers": {"content-type": "text/plain"}, "content": b"{}"}),
        ("POST", "/v1/search/upload", {"headers": MULTIPART, "content": PART * 5000 + b"--a--"}),
        ("POST", "/v1/search/upload", {"headers": MULTIPART, "content": b"--a\r\n" * 100_000}),
        ("POST", "/v1/items", {"headers": MULTIPART, "content": PART}),
        ("POST", "/add", {"headers": MULTIPART, "content": b"--a\r\n"}),
        ("POST", "/add", {"data": {"id": "x", "q": "../../etc/passwd", "f.price": "\0"}}),
        ("POST", "/remove", {"headers": JSON, "content": b"{}"}),
        ("POST", "/remove", {"data": {"id": "\0\ud800".encode("utf-8", "surrogatepass")}}),
        ("POST", "/search/address", {"data": {"url": "http://127.0.0.1/a.png"}}),
        ("GET", "/remove", {}),
        ("GET", "/remove?id=%00", {}),
        ("DELETE", "/v1/items", {}),
        ("DELETE", "/v1/items?id=", {}),
        ("DELETE", "/v1/items?id=%00&id=%ff&id=..", {}),
        ("DELETE", "/v1/items?" + "&".join(f"id={n}" for n in range(1000)), {}),
        ("DELETE", "/v1/items?" + "&".join(f"id={n}" for n in range(5000)), {}),
        ("GET", "/v1/items?" + "&".join(f"id={n}" for n in range(5000)), {}),
        ("GET", "/v1/items?id=" + "x" * 60_000, {}),
        ("GET", "/v1/items?words=" + quote("NEAR(a b)*\" OR \0 ' --"), {}),
        ("GET", "/v1/items?filter=" + quote("id IN (FROM read_csv('/etc/passwd'))"), {}),
        ("GET", "/v1/items?filter=" + quote("RPAD(id, 1000000000, 'x') = 'x'"), {}),
        ("GET", "/v1/thumbnail?id=..%2f..%2fetc%2fpasswd", {}),
        ("GET", "/upload?q=a%0d%0aX-Injected:%201", {}),
        ("GET", "/?id=%00&words=%ED%A0%80", {}),
        ("GET", "/catalogue?f.price.from=1e999&f.label=%00", {}),
        ("GET", "/codes?prefix=" + "1-" * 20_000, {}),
        ("GET", "/static/..%2f..%2fapp.py", {}),
        ("GET", "/static//etc/passwd", {}),
        ("GET", "/%ff%fe%00", {}),
        ("TRACE", "/", {}),
        ("PUT", "/v1/items", {}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_malformed_request_is_refused_and_is_no_fault(attacked, method, path, options):
    answer = request(attacked, method, path, **options)
    assert 400 <= answer.status_code < 500 or (answer.status_code == 200 and "words" in path)
    assert "x-injected" not in answer.headers and "root:" not in answer.text


@pytest.mark.parametrize(
    ("items", "status"),
    [
        ('[{"id": "%s"}]' % ("x" * 10**6), 422),
        ('[{"id": "\\ud800"}]', 422),
        ('[{"metadata": {"label": %s}}]' % ("[" * 1000 + "]" * 1000), 422),
        ('[{"metadata": {"label": %s}}]' % ('{"a":' * 150 + "1" + "}" * 150), 400),
        ("[" * 100_000, 422),
        ('[{"metadata": {"price": %s}}]' % ("9" * 5000), 422),
        ('[{"metadata": {"sha256": "%s"}}]' % ("a" * 64), 400),
        ('[{"metadata": {"path": "/etc/passwd"}}]', 400),
        ('[{"metadata": {"id": "cats/00.png"}}]', 400),
        ('[{"id": "a"}, {"id": "b"}]', 400),
        ('[{"id": "a", "owner": "me"}]', 422),
        ("null", 422),
        ("\0", 422),
    ],
    ids=lambda value: str(value)[:40],
)
def test_metadata_that_no_image_can_have_adds_nothing(attacked, png, items, status):
    files = [("images", ("a.png", png(300)))]
    answer = request(attacked, "POST", "/v1/items", files=files, data={"items": items})
    assert answer.status_code == status and len(answer.text) < 2000
    assert attacked.get("/v1/items").json()["total"] == 40


@pytest.mark.parametrize(
    "name",
    ["a\0b\r\nX-Injected: 1\x1b[31m\u202e", "../../etc/passwd", "/dev/zero", "..", "a?b&c=#%2f",
     '"><script>alert(1)</script>', "x" * 4000, "é€😀", "' OR 1=1 --"],
    ids=lambda value: repr(value[:20]),
)  # fmt: skip
def test_an_id_is_only_a_text_wherever_it_is_used(attacked, png, caplog, name):
    """In addresses, headers, pages, file names and the log."""
    caplog.set_level(logging.INFO)
    items = json.dumps([{"id": name, "metadata": {"price": float("nan"), "label": name}}])
    files = [("images", (name[:200], png(301)))]
    added = request(attacked, "POST", "/v1/items", files=files, data={"items": items})
    assert added.status_code == 200 and added.json()["ids"] == [name]
    assert attacked.get("/v1/picture", params={"id": name}).content == png(301)
    (item,) = attacked.get("/v1/items", params={"id": name}).json()["items"]
    assert attacked.get(item["thumbnail"]).headers["content-type"] == "image/png"
    for path in ("/", "/compare", "/why"):
        page = attacked.get(path, params={"id": name, "hit": name})
        assert page.status_code == 200 and "<script>alert" not in page.text
        assert "x-injected" not in page.headers
    assert request(attacked, "DELETE", "/v1/items", params={"id": name}).status_code == 200
    lines = [middleware.JsonFormatter().format(record) for record in caplog.records]
    assert all("\n" not in line and json.loads(line) for line in lines)
    written = {path.name for path in attacked.root.rglob("*")}
    assert not any("Injected" in file or "script" in file or file == "passwd" for file in written)


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "null"},
     {"origin": "http://evil.example"}, {"origin": "http://127.0.0.1.evil.example"}],
)  # fmt: skip
def test_a_form_of_another_site_changes_nothing(attacked, png, headers):
    """A browser sends multipart forms to any site without asking it first."""
    files = [("images", ("a.png", png(302)))]
    assert request(attacked, "POST", "/v1/items", files=files, headers=headers).status_code == 403
    options = {"params": {"id": "cats/00.png"}, "headers": headers}
    assert request(attacked, "DELETE", "/v1/items", **options).status_code == 403
    assert attacked.get("/v1/items").json()["total"] == 40


@pytest.mark.parametrize(
    "authorization",
    ["Bearer ", "Bearer null", "Basic é", "Basic " + "A" * 9999, "Basic Og==", "Bearer \xff",
     "bearer", "Digest a", "Bearer " + "0" * 64],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_no_guess_of_a_token_lets_anybody_in(attacked, tmp_path, authorization):
    tokens.create_token(tmp_path / "tokens.json", "shop")
    sha256 = json.loads((tmp_path / "tokens.json").read_text())["shop"]["sha256"]
    app = create_app(attacked.service, tokens=Tokens(tmp_path / "tokens.json"))
    for value in (authorization, bearer(sha256)):
        answer = _ask(app, "/v1/info", {"authorization": value.encode("latin-1")})
        assert answer.status_code == 401


def _ask(app, path, headers):
    import asyncio

    async def send():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(send())


def test_no_redirect_leads_to_a_host_that_the_client_names(attacked):
    for path in ("/catalogue/", "//evil.example/", "/v1/items/", "/static"):
        answer = attacked.get(path, headers={"host": "localhost"})
        assert answer.status_code == 404 and "location" not in answer.headers


def test_secrets_are_in_no_error_and_no_log(attacked, caplog, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2-hunter2")
    caplog.set_level(logging.INFO)
    url = "https://me:my-password@shop.example/a.png?X-Amz-Signature=abcdef"
    answer = request(attacked, "POST", "/v1/search", json={"queries": [{"url": url}]})
    named = attacked.get("/v1/items", params={"id": "hunter2-hunter2"})
    wait_until(lambda: len(caplog.records) >= 2)
    lines = [middleware.JsonFormatter().format(record) for record in caplog.records]
    for text in (answer.text, named.text, *lines):
        assert not any(secret in text for secret in ("my-password", "abcdef", "hunter2"))


def test_no_file_and_no_request_writes_lines_of_its_own_into_the_log(make_project, serve, tmp_path):
    started = serve(make_project(tmp_path / "project"))
    file = io.BytesIO()
    Image.new("1", (60, 40)).save(file, "TIFF", compression="group4")
    damaged = file.getvalue().replace(b"\x80", b"\xff{\n")[:-3]
    for content in (damaged, b"II*\0" + b"\xff" * 99, damaged[: len(damaged) // 2]):
        started.post("/v1/search/upload", files={"images": ("a\n{}.tif", content)})
    part = b"--a\r\nContent-Disposition\r: form-data\r\n\r\n"
    started.post("/v1/search/upload", content=part, headers=MULTIPART)
    started.stop()
    lines = [line for line in started.log.read_text().splitlines() if line.strip()]
    others = [line for line in lines if not line.startswith(("{", "irgen: http"))]
    assert not others and all(json.loads(line) for line in lines if line[0] == "{")
