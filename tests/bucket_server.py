"""A real S3 server on loopback, its requests counted and its answers spoilt at will."""

import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any


class BucketServer:
    """A real S3 server on loopback whose answers a test may spoil.

    ``fault(environ, answer)`` is asked before each request; it returns a WSGI answer instead of the
    server's, made with ``answer(status, body, headers)``, or None. ``cut`` (a function of the
    request) says how many bytes of a body are sent before the connection breaks. ``requests`` are
    the method, the path and the range of all that came.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.uri = f"http://127.0.0.1:{self.server.port}"
        self.reset()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        """Empty every bucket, and end all faults."""
        from moto.s3.models import s3_backends

        self.requests: list[tuple[str, str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.fault: Callable[..., Any] | None = None
        self.cut: Callable[[dict[str, Any]], int | None] | None = None
        s3_backends.reset()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        path = environ["PATH_INFO"]
        query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
        asked = (environ["REQUEST_METHOD"], path + query, environ.get("HTTP_RANGE", ""))
        self.requests.append(asked)
        self.headers.append({k: v for k, v in environ.items() if k.startswith("HTTP_")})

        def answer(status: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(status, list({"Content-Length": str(len(body)), **(headers or {})}.items()))
            return [body]

        if self.fault is not None and (spoilt := self.fault(environ, answer)) is not None:
            return spoilt
        limit = self.cut(environ) if self.cut is not None else None
        return self.app(environ, start) if limit is None else self._cut(environ, start, limit)

    def _cut(self, environ: dict[str, Any], start: Callable[..., Any], limit: int) -> Any:
        yield b"".join(self.app(environ, start))[:limit]
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)

    def fill(self, bucket: str, contents: dict[str, bytes]) -> None:
        """Put many objects into a bucket at once, without requests."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        if bucket not in store.buckets:
            store.create_bucket(bucket, "us-east-1")
        for key, content in contents.items():
            store.put_object(bucket, key, content)

    def content(self, bucket: str, key: str) -> bytes:
        """Return the bytes of an object, without a request."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].get_object(bucket, key).value

    def drop(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects from a bucket, without requests."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        for key in keys:
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].delete_object(bucket, key)

    def count(self, method: str, part: str = "") -> int:
        """Count the requests of a method with ``part`` in their paths."""
        return sum(asked[0] == method and part in asked[1] for asked in self.requests)
