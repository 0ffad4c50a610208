"""The client of a running service."""

import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from irgen import client as client_module
from irgen.client import Change, Client
from irgen.commands import search_service
from irgen.commands.search_output import Answer, as_csv, as_json, describe_readings
from irgen.commands.search_queries import Queries, search_index
from irgen.errors import ServiceError
from irgen.index.index import Index

from ..captioned import NAMES, pictures


def test_a_client_searches_by_file_bytes_and_id(running, png, tmp_path):
    (tmp_path / "a.png").write_bytes(png(3))
    with Client(running.url) as client:
        by_file, by_bytes = client.search([tmp_path / "a.png", png(5)], k=3)
        assert [by_file[0].id, by_bytes[0].id] == ["dogs/03.png", "dogs/05.png"]
        assert by_file[0].metadata["label"] == "dogs" and len(by_file[0].code) == 3
        (cats,) = client.search_ids(["dogs/01.png"], k=40, filter="label = 'cats'")
        assert len(cats) == 10
        assert client.info()["index"]["images"] == 40
        assert len(client.items(limit=7)) == 7
        assert client.picture("dogs/03.png") == png(3)
        assert client.thumbnail("dogs/03.png").startswith(b"\x89PNG")


def test_a_refusal_is_raised_with_the_services_reason(running):
    with Client(running.url) as client, pytest.raises(ServiceError, match="'nothing'"):
        client.search_ids(["nothing"])


def test_a_service_that_is_busy_is_asked_again(monkeypatch):
    answers = [(429, b"{}"), (503, b"{}"), (200, b'{"items": []}')]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers.pop(0)
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Client(f"http://127.0.0.1:{server.server_port}") as client:
        assert client.items() == [] and not answers
    server.shutdown()
    server.server_close()


def test_a_service_that_is_not_there_is_told_with_its_address_and_no_token(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.001)
    reason = r"127.0.0.1:9: cannot be reached .* 4 times"
    url = "http://shop:TOKEN@127.0.0.1:9"
    with Client(url) as client, pytest.raises(ServiceError, match=reason) as error:
        client.info()
    assert "TOKEN" not in str(error.value)


def test_an_address_that_is_none_and_a_server_that_is_none_of_ours_are_told():
    with pytest.raises(ServiceError, match="no address"):
        Client("http://a:b:c")
    with Client("localhost:1") as client, pytest.raises(ServiceError, match="write http://"):
        client.info()


def split_numbers(text):
    """Return what is printed around decimals, and these."""
    return re.split(r"-?\d+\.\d+(?:e-?\d+)?", text), [
        float(number) for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)
    ]


def test_a_search_through_a_service_prints_what_the_index_prints(running, png, tmp_path):
    (tmp_path / "a.png").write_bytes(png(3))
    queries = Queries((str(tmp_path / "a.png"),), "image")
    with Index.open(running.root / "data" / "index") as index:
        for options in ({}, {"rerank": False}, {"allow": "label = 'nothing'"}):
            wanted = {"filter" if name == "allow" else name: v for name, v in options.items()}
            answer = search_service.ask(running.url, queries, 7, wanted)
            hits = index.search(queries.names, 7, replace(index.options(7), **options))
            alone = Answer.of(queries, hits, index)
            for form in (as_csv, as_json):  # other threads may round the last digits differently
                texts, numbers = split_numbers(form(answer))
                own_texts, own_numbers = split_numbers(form(alone))
                assert texts == own_texts and numbers == pytest.approx(own_numbers, abs=1e-5)


def test_a_search_by_words_through_a_service_prints_what_the_index_prints(running_with_words):
    file = str(running_with_words.root / NAMES[0])
    with Index.open(running_with_words.root / "data" / "index") as index:
        for queries in (
            Queries(("red apple", "blue xyzzy shirt"), "text"),
            Queries((file,), "composed", "red apple"),
        ):
            answer = search_service.ask(running_with_words.url, queries, 7, {})
            alone = Answer.of(queries, search_index(index, queries, 7, index.options(7)), index)
            assert describe_readings(answer) == describe_readings(alone)
            texts, numbers = split_numbers(as_json(answer))
            own_texts, own_numbers = split_numbers(as_json(alone))
            assert texts == own_texts and numbers == pytest.approx(own_numbers, abs=1e-5)


def test_a_client_searches_by_words_alone_and_with_a_picture(running_with_words, running):
    with Client(running_with_words.url) as client:
        apple, shirt = client.search_texts(["red apple", "blue xyzzy shirt"], k=3)
        assert {hit.metadata["label"] for hit in apple} == {"apple"}
        assert {hit.metadata["label"] for hit in shirt} == {"shirt"}
        assert (shirt.text.unknown_words, shirt.text.full_text) == (["xyzzy"], False)
        assert client.search_texts(["apple"], filter="label = 'shirt'")[0][0].same_label is None
        (both,) = client.search_composed([pictures()[0]], ["red apple"], k=2)
        assert {hit.metadata["label"] for hit in both} == {"apple"}
        with pytest.raises(ServiceError, match="2 texts for 1 images"):
            client.search_composed([pictures()[0]], ["red", "blue"])
        with pytest.raises(ServiceError, match="no image's texts have “xyzzy”"):
            client.search_texts(["xyzzy"])
    with Client(running.url) as client:
        (cats,) = client.search_texts(["cats"], k=40)
        assert len(cats) == 10 and cats.text.full_text and cats[0].cosine is None


def test_a_client_adds_replaces_and_removes(writable, png, tmp_path):
    (tmp_path / "a.png").write_bytes(png(100))
    with Client(writable.url) as client:
        change = client.add([tmp_path / "a.png", png(101)], ["a.png", "b"], [{"price": 3}, {}])
        assert change == Change(ids=["a.png", "b"], replaced=0, images=42)
        assert client.add([("named.png", png(102))]).ids == ["named.png"]
        assert client.search([png(101)], k=1)[0][0].id == "b"
        with pytest.raises(ServiceError, match="in the index already: 'b'"):
            client.add([png(103)], ["b"])
        assert client.upsert([png(103)], ["b"]) == Change(ids=["b"], replaced=1, images=43)
        assert client.remove(["a.png", "b"]) == Change(ids=["a.png", "b"], replaced=0, images=41)
        with pytest.raises(ServiceError, match="not in the index: 'a"):
            client.remove(["a.png"])
        with pytest.raises(ServiceError, match="give ids"):
            client.add([png(103)])
        with pytest.raises(ServiceError, match="id: 2 values for 1 images"):
            client.add([png(103)], ["a", "b"])


class Unsure(BaseHTTPRequestHandler):
    """Read a request, then send the next of ``refusals``; break the connection if none is left."""

    refusals: ClassVar[list[int]] = []
    received: ClassVar[list[str]] = []

    def do_POST(self):
        self.received.append(self.path)
        self.rfile.read(int(self.headers["content-length"]))
        if self.refusals:
            self.send_response(self.refusals.pop())
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(
    ("method", "refusals", "requests", "reason"),
    [
        ("add", [], 1, "connection broke .*not known whether the change was made"),
        ("add", [503, 429], 3, "connection broke .*not known whether the change was made"),
        ("add", [504], 1, "status 504, so it is not known whether"),
        ("upsert", [504], 4, "cannot be reached .*tried 4 times"),
    ],
)
def test_a_change_is_sent_again_only_if_it_has_not_begun_or_may_be_made_twice(
    monkeypatch, png, method, refusals, requests, reason
):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(Unsure, "refusals", list(refusals))
    monkeypatch.setattr(Unsure, "received", [])
    server = HTTPServer(("127.0.0.1", 0), Unsure)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with Client(url) as client, pytest.raises(ServiceError, match=reason):
        getattr(client, method)([("a.png", png(1))])
    server.shutdown()
    server.server_close()
    assert len(Unsure.received) == requests
