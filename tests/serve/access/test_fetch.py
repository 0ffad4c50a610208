"""Pictures by address: what is fetched, and that no address leads into the inner network."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from irgen.errors import ImageError, ServiceError
from irgen.serve.access import fetch
from irgen.serve.access.addresses import UNREACHED, is_public
from irgen.serve.access.fetch import Fetcher


class Server(ThreadingHTTPServer):
    """A web server on every address of the loopback; ``answers``: status, headers and body by
    path. ``asked``: lines and headers of the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("0.0.0.0", 0), Handler)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.stop = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append((self.path, dict(self.headers)))
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/endless":
            while not self.server.stop.wait(0.1):
                self.wfile.write(bytes(9))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let names resolve to addresses: ``resolve(name=[[…], […]])`` sets those of the first look-up,
    then of the second. Return the list of names that were looked up."""
    asked: list[str] = []

    def install(**names: list[list[str]]) -> list[str]:
        def look_up(host: str, port: int, **_: object) -> list[tuple]:
            asked.append(host)
            answers = names[host.partition(".")[0]]
            addresses = answers.pop(0) if len(answers) > 1 else answers[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        return asked

    return install


def get(server: Server, *urls: str, most: int = 1000, public: str = "127.0.0.1") -> list[bytes]:
    """Fetch as if ``public`` were the one public address; PORT in a URL is the server's."""
    hosts = [f"{name}:{server.port}" for name in ("shop.example", "cdn.example", public)]
    fetcher = Fetcher(most, hosts, lambda address: address == public)
    return asyncio.run(fetcher.fetch_all([url.replace("PORT", str(server.port)) for url in urls]))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200",
     "100.64.0.1", "168.63.129.16", "192.0.0.192", "0.0.0.0", "224.0.0.1", "239.1.1.1",
     "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1", "::127.0.0.1",
     "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:93.184.216.34", "fe80::1",
     "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1",
     "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::",
     "2001:0:7f00:1::", "2001:db8::1", "3fff::1", "100::1"],
)  # fmt: skip
def test_an_address_that_is_not_of_the_public_internet_is_refused(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::6810:84e5"])
def test_an_address_of_the_public_internet_is_asked(address):
    assert is_public(address)


def test_pictures_come_in_their_order_without_anything_that_names_somebody(server, resolve, png):
    resolve(shop=[["127.0.0.1"]], cdn=[["127.0.0.1"]])
    server.answers["/a.png"] = 200, {"Set-Cookie": "me=1"}, png(1)
    server.answers["/b.png?size=2"] = 302, {"Location": f"//cdn.example:{server.port}/b"}, b""
    server.answers["/b"] = 200, {}, png(2)
    urls = ["http://shop.example:PORT/b.png?size=2#top", "http://shop.example:PORT/a.png"]
    assert get(server, *urls) == [png(2), png(1)]
    sent = {name.lower() for _, headers in server.asked for name in headers}
    assert sent == {"host", "user-agent", "accept", "accept-encoding"}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0177.1", "[::1]",
     "[::ffff:127.0.0.1]", "0.0.0.0", "inner.example"],
)  # fmt: skip
def test_no_spelling_of_an_inner_address_is_asked(server, resolve, host, request):
    if host == "inner.example":
        resolve(inner=[["127.0.0.1"]])
    fetcher = Fetcher(1000, [f"{host}:{server.port}"])
    with pytest.raises(ImageError) as refusal:
        asyncio.run(fetcher.fetch_all([f"http://{host}:{server.port}/a.png"]))
    assert str(refusal.value).endswith(UNREACHED) and not server.asked


def test_a_name_with_one_inner_address_is_not_asked_at_all(server, resolve):
    resolve(shop=[["127.0.0.1", "10.0.0.1"]])
    with pytest.raises(ImageError, match="public internet"):
        get(server, "http://shop.example:PORT/a.png")
    assert not server.asked


def test_a_name_is_looked_up_once_and_the_checked_address_is_asked(server, resolve, png):
    """Rebinding: the second look-up of the name would give an inner address."""
    asked = resolve(shop=[["127.0.0.1"], ["127.0.0.2"]])
    server.answers["/a.png"] = 200, {}, png(1)
    assert get(server, "http://shop.example:PORT/a.png") == [png(1)]
    assert asked == ["shop.example"]


@pytest.mark.parametrize(
    "target",
    ["http://cdn.example:PORT/x", "http://127.0.0.2:PORT/x", "//127.0.0.2:PORT/x",
     "http://shop.example:PORT/x"],
)  # fmt: skip
def test_a_redirect_into_the_inner_network_is_not_followed(server, resolve, target):
    resolve(shop=[["127.0.0.1"], ["127.0.0.2"]], cdn=[["127.0.0.2"]])
    location = target.replace("PORT", str(server.port))
    server.answers["/a.png"] = 302, {"Location": location}, b""
    server.answers["/x"] = 200, {}, b"secret"
    with pytest.raises(ImageError) as refusal:
        get(server, "http://shop.example:PORT/a.png")
    assert [path for path, _ in server.asked] == ["/a.png"]
    assert "secret" not in str(refusal.value) and "127.0.0.2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "begin with http"),
        ("ftp://shop.example/a.png", "begin with http"),
        ("gopher://127.0.0.1:6379/_x", "begin with http"),
        ("/etc/passwd", "begin with http"),
        ("http://", "begin with http"),
        ("http://me:secret-word@shop.example:PORT/a", "user or password"),
        ("http://shop.example:6379/a.png", "does not fetch from that host"),
        ("http://other.example/a.png", "does not fetch from that host"),
        ("http://a\r\nHost: b/", "no address"),
        ("http://[1.2.3.4]/", "no address"),
        ("http://shop.example:PORT/missing", "status 404"),
        ("http://shop.example:PORT/packed", "packed"),
        ("http://shop.example:PORT/loop", "redirects more than 3 times"),
        ("http://shop.example:PORT/file", "begin with http"),
        ("http://shop.example:PORT/large", "more than 1,000 bytes"),
        ("http://shop.example:PORT/broken", "gives no answer"),
    ],
)  # fmt: skip
def test_what_is_not_fetched_is_refused_with_a_reason(server, resolve, url, reason):
    resolve(shop=[["127.0.0.1"]])
    server.answers |= {
        "/packed": (200, {"Content-Encoding": "gzip"}, b""),
        "/loop": (302, {"Location": "/loop"}, b""),
        "/file": (302, {"Location": "file:///etc/passwd"}, b""),
        "/large": (200, {}, bytes(1001)),
        "/broken": (200, {"Content-Length": "9"}, b"abc"),
    }
    with pytest.raises(ImageError) as refusal:
        get(server, url)
    assert reason in str(refusal.value) and "secret-word" not in str(refusal.value)


def test_without_a_list_of_hosts_only_the_ports_of_the_web_are_asked(server):
    with pytest.raises(ImageError, match="ports 80 and 443"):
        asyncio.run(Fetcher(1000).fetch_all([f"http://shop.example:{server.port}/"]))


def test_the_pictures_of_one_request_share_its_bytes(server, resolve):
    resolve(shop=[["127.0.0.1"]])
    server.answers["/a"] = 200, {}, bytes(600)
    assert len(get(server, "http://shop.example:PORT/a")[0]) == 600
    with pytest.raises(ImageError, match="more than 1,000 bytes"):
        get(server, *["http://shop.example:PORT/a"] * 2)


def test_a_server_that_sends_without_end_is_given_up(server, resolve, monkeypatch):
    monkeypatch.setattr(fetch, "SECONDS", 1.0)
    resolve(shop=[["127.0.0.1"]])
    server.answers["/endless"] = 200, {}, b""
    started = time.monotonic()
    with pytest.raises(ImageError, match="within 1 s"):
        get(server, "http://shop.example:PORT/endless", most=10**6)
    assert time.monotonic() - started < 8


def test_a_certificate_that_nobody_has_signed_is_refused(server, resolve, tmp_path):
    resolve(shop=[["127.0.0.1"]])
    server.answers["/a"] = 200, {}, b"forged"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write_certificate(tmp_path / "own.pem", "shop.example"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(ImageError, match="gives no answer"):
        get(server, "https://shop.example:PORT/a")
    assert not server.asked


def write_certificate(path: Path, name: str) -> Path:
    """Write a key and a certificate that it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(secret + certificate.public_bytes(encoding))
    return path


@pytest.mark.parametrize("text", ["", "http://a", "a/b", "me@a", "a:x"])
def test_a_host_that_is_none_is_an_error_at_the_start(text):
    with pytest.raises(ServiceError, match="HOST or HOST:PORT"):
        Fetcher(1000, [text])


def ask(running, *queries):
    return running.post("/v1/search", json={"queries": list(queries), "k": 3})


def test_a_service_fetches_nothing_unless_it_is_told_to(running):
    answer = ask(running, {"url": "http://127.0.0.1:1/a.png"})
    assert answer.status_code == 400 and "--fetch" in answer.json()["detail"]


def test_a_search_by_address_is_that_by_the_file(running, server, resolve, png, monkeypatch):
    server.answers["/3.png"] = 200, {}, png(3)
    hosts = [f"localhost:{server.port}"]
    monkeypatch.setattr(running.service, "_fetcher", Fetcher(1000, hosts, lambda _: True))
    url = f"http://localhost:{server.port}/3.png"
    answer = ask(running, {"url": url}, {"id": "dogs/01.png"}, {"url": url})
    by_url, by_id, again = answer.json()["results"]
    assert by_url == again and by_url["hits"][0]["id"] == "dogs/03.png"
    assert by_id["hits"][0]["id"] != "dogs/01.png"
    inner = ask(running, {"url": f"http://user:pw@localhost:{server.port}/3.png?key=hidden"})
    assert inner.status_code == 400
    assert "pw@" not in inner.text and "hidden" not in inner.text
