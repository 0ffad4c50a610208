"""A web server whose answers a test may spoil."""

import hashlib
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class WebServer:
    """A real web server on loopback that gives ranges, and can be told to fail.

    ``files``: contents by path. ``ranged``, ``etags``, ``lengths``: what it can do. ``status`` (a
    function of path and first byte) answers with that status instead; ``cut`` says after how many
    bytes of a body the connection breaks. ``requests``: path and range of all that came.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranged = self.etags = self.lengths = True
        self.status: Callable[[str, int], int | None] = lambda path, start: None
        self.cut: Callable[[str, int], int | None] = lambda path, start: None
        self.headers: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, wanted = request.path, request.headers.get("Range", "")
        self.requests.append((path, wanted))
        byte_range = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted) if self.ranged else None
        start = int(byte_range[1]) if byte_range else 0
        status = self.status(path, start)  # it may replace the file, too
        content = self.files.get(path.split("?")[0])
        stop = int(byte_range[2]) + 1 if byte_range else len(content or b"")
        status = status or (404 if content is None else 206 if byte_range else 200)
        if content is not None and byte_range and start >= len(content):
            status = 416
        body = content[start:stop] if content is not None and status in (200, 206) else b""
        request.send_response(status)
        if content is not None and byte_range and status in (206, 416):
            sent = f"{start}-{start + len(body) - 1}" if body else "*"
            request.send_header("Content-Range", f"bytes {sent}/{len(content)}")
        if content is not None and self.etags:
            request.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        for name, value in self.headers.items():
            request.send_header(name, value)
        limit = self.cut(path, start) if body else None
        if self.lengths or not body:
            request.send_header("Content-Length", str(len(body)))
        else:
            request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(body if limit is None else body[:limit])
        if limit is not None or not self.lengths:
            request.close_connection = True

    def bodies(self) -> list[str]:
        """List the requested ranges, without the requests of the first byte alone."""
        return [wanted for _, wanted in self.requests if wanted != "bytes=0-0"]


@pytest.fixture
def web_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """Yield a server without files; shorten the pauses between retries."""
    from irgen.catalog.sources import remote

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(remote, "LONGEST_PAUSE", 0.05)
    server = WebServer()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def hanging_up() -> Iterator[str]:
    """Yield the https address of a server that ends each connection in the middle of the handshake,
    as a balancer does while it restarts."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = listening.accept()
                connection.recv(1 << 16)  # all that was said, so that it is an end and no reset
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"https://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()


@pytest.fixture
def untrusted(tmp_path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the address of a web server with an untrusted certificate, and the list of handshakes
    it began."""
    certificate = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "-", "-out", "-"]
    certificate.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listening = socket.create_server(("127.0.0.1", 0))
    handshakes: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                handshakes.append(connection.recv(1, socket.MSG_PEEK))
                with suppress(OSError), context.wrap_socket(connection, server_side=True):
                    pass

    threading.Thread(target=serve, daemon=True).start()
    yield f"https://127.0.0.1:{listening.getsockname()[1]}", handshakes
    listening.close()
