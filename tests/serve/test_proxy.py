"""The proxy of deploy/nginx.conf adds TLS and single sign-on."""

import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from ..server_program import find_free_port
from ..waiting import wait_until

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed"
)


class SignOn(BaseHTTPRequestHandler):
    """Sign in each request that has the cookie, as oauth2-proxy does."""

    def do_GET(self):
        signed_in = "signed-in" in self.headers.get("Cookie", "")
        if self.path.startswith("/oauth2/start"):
            self.send_response(302)
            self.send_header("Location", "https://provider.example/")
        else:
            self.send_response(202 if signed_in else 401)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def sign_on():
    server = ThreadingHTTPServer(("127.0.0.1", 0), SignOn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(tmp_path, running, sign_on):
    """Start nginx in front of the service, and yield its address."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    port = find_free_port()
    server = CONFIG.read_text()
    for old, new in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/irgen/certificate.pem": str(certificate),
        "/etc/irgen/key.pem": str(key),
        "http://127.0.0.1:8080": running.url,
        "127.0.0.1:4180": f"127.0.0.1:{sign_on}",
    }.items():
        assert old in server
        server = server.replace(old, new)
    folders = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = (
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/errors; events {{}}\n"
        f"http {{ access_log off; {folders}\n{server}\n}}\n"
    )
    config = tmp_path / "nginx.conf"
    config.write_text(text)
    command = [str(NGINX), "-p", str(tmp_path), "-c", str(config), "-e", f"{tmp_path}/errors"]
    done = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tmp_path.chmod(0o755)
    process = subprocess.Popen(command)
    url = f"https://127.0.0.1:{port}"

    def answers():
        try:
            httpx.get(url, verify=False)
        except httpx.TransportError:
            return False
        return True

    wait_until(answers)
    yield url
    process.terminate()
    process.wait(30)


def test_who_has_signed_in_searches_over_tls_and_others_are_sent_to_sign_in(proxy, png):
    stranger = httpx.get(f"{proxy}/", verify=False)
    assert stranger.status_code == 302
    assert stranger.headers["location"] == "https://provider.example/"
    with httpx.Client(base_url=proxy, verify=False, cookies={"session": "signed-in"}) as client:
        assert client.get("/").status_code == 200
        files = [("images", ("a.png", png(3)))]
        answer = client.post("/v1/search/upload", files=files, params={"k": 2})
        assert answer.json()["results"][0]["hits"][0]["id"] == "dogs/03.png"
        page = client.post("/search", files=[("image", ("a.png", png(3)))])
        assert page.status_code == 303 and page.headers["location"].startswith("/?")
