"""Whoever is on call is told by a webhook, with a real Prefect server and a real webhook."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect import flow

from flows import events, notify

from .conftest import PrefectServer, until


class Chat(HTTPServer):
    """A chat with an incoming webhook; ``texts`` is what it was told."""

    def __init__(self) -> None:
        texts: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                texts.append(json.loads(body)["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)
        self.texts = texts
        self.address = f"http://127.0.0.1:{self.server_port}/hooks/s3cret"


@pytest.fixture
def chat(prefect_server: PrefectServer) -> Iterator[Chat]:
    """Nobody is told any more when the test has ended."""
    chat = Chat()
    threading.Thread(target=chat.serve_forever, daemon=True).start()
    yield chat
    chat.shutdown()
    for each in prefect_server.ask("/automations/filter", {}):
        if each["name"] in notify.AUTOMATIONS:
            prefect_server.ask(f"/automations/{each['id']}", method="DELETE")


@pytest.mark.slow
def test_a_candidate_drift_and_a_failure_are_told_once_each(
    prefect_server: PrefectServer, chat: Chat, tmp_path: Path
) -> None:
    notify.make_automations("http://127.0.0.1:9/an-old-address")
    notify.make_automations(chat.address)  # takes its place
    kept = {"version": 7, "why": "precision/10 is 0.1"}
    exceeded = [{"name": "unseen_labels", "value": 0.5, "threshold": 0.1}]

    @flow(name="update", persist_result=False)
    def failing() -> None:
        raise RuntimeError("trie failed: no codes")

    events.emit(events.REJECTED, tmp_path, kept, key=str(tmp_path))
    drift = {"revision": 3, "exceeded": exceeded}
    events.emit(events.DRIFTED, tmp_path, drift, key=str(tmp_path))
    failing(return_state=True)
    until(lambda: len(chat.texts) >= 3, "not everything was told", prefect_server.told)
    one, two, three = sorted(chat.texts)
    assert one == "Candidate 7 is not served\nprecision/10 is 0.1"
    assert two == "Drift at revision 3: a retrain was requested\nunseen_labels"
    assert three.startswith("update ") and "Failed" in three and "trie failed: no codes" in three


def test_the_webhook_s_address_is_no_plain_text(prefect_server: PrefectServer, chat: Chat) -> None:
    notify.make_automations(chat.address)
    assert "s3cret" not in json.dumps(prefect_server.ask("/block_documents/filter", {}))


def test_without_a_webhook_the_remedy_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("IRGEN_WEBHOOK", raising=False)
    assert notify.main() == 2
    assert "IRGEN_WEBHOOK is not set" in capsys.readouterr().err
