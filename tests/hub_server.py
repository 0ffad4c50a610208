"""A stand-in for the hub of pretrained weights, on loopback."""

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH = "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"  # timm's own, of half a megabyte


class Hub(ThreadingHTTPServer):
    """A stand-in for the hub on loopback that has one file and counts what it is asked."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.asked = content, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        self.server.asked.append((self.command, self.path))
        there = self.path == PATH
        content = self.server.content if there else b""
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(self.server.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *arguments) -> None:
        pass
