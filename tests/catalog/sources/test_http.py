"""Files on web servers come whole and checked, whatever the server can and does."""

import os
import random
import time
from functools import partial
from pathlib import Path

import pytest

from irgen.catalog.sources import http, transfer
from irgen.catalog.sources.remote import Remote, use_present
from irgen.catalog.sources.transfer import fetch, read
from irgen.errors import SourceError

CONTENT = random.Random(0).randbytes(1_000_000)


@pytest.fixture
def client(web_server, monkeypatch) -> http.Client:
    monkeypatch.setattr(transfer, "PIECE", 100_000)
    web_server.files["/a%20b.zip"] = CONTENT
    return http.connect(4, 6)


def bring(client: http.Client, url: str, path: Path) -> bool | None:
    def use(remote_file: Remote) -> bool:
        fetch(remote_file, path, connections=4, retries=client.retries)
        return True

    return use_present(partial(http.look_at, client, url), use)


def test_a_large_file_comes_in_parallel_ranges(client, web_server, tmp_path: Path) -> None:
    assert bring(client, f"{web_server.uri}/a b.zip", tmp_path / "a") is True
    assert (tmp_path / "a").read_bytes() == CONTENT
    pieces = {f"bytes={start}-{start + 99_999}" for start in range(0, 1_000_000, 100_000)}
    assert set(web_server.bodies()) == pieces and len(web_server.bodies()) == 10


@pytest.mark.parametrize("lengths", [True, False])
def test_a_server_without_ranges_gives_the_file_whole(
    client, web_server, tmp_path: Path, lengths: bool
) -> None:
    web_server.ranged, web_server.lengths = False, lengths
    remote_file = http.look_at(client, f"{web_server.uri}/a%20b.zip")
    assert (remote_file.ranged, remote_file.size) == (False, len(CONTENT) if lengths else None)
    assert bring(client, f"{web_server.uri}/a%20b.zip", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert read(remote_file, 2).content == CONTENT


def test_a_server_without_ranges_that_cuts_is_asked_again(
    client, web_server, tmp_path: Path
) -> None:
    web_server.ranged = False
    cuts = iter([0, 300_000, 999_999])  # the first is of the look
    web_server.cut = lambda path, start: next(cuts, None)
    assert bring(client, f"{web_server.uri}/a%20b.zip", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_connections_that_are_cut_are_taken_up_where_they_broke(
    client, web_server, tmp_path: Path
) -> None:
    rng = random.Random(0)
    web_server.cut = lambda path, start: rng.randrange(100_000) if rng.random() < 0.5 else None
    assert bring(client, f"{web_server.uri}/a%20b.zip", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    asked = [wanted.removeprefix("bytes=").split("-") for wanted in web_server.bodies()]
    assert len(asked) > 10 and any(int(start) % 100_000 for start, _ in asked)


def test_a_third_of_503s_is_no_trouble(client, web_server, tmp_path: Path) -> None:
    rng = random.Random(0)
    web_server.status = lambda path, start: 503 if rng.random() < 0.3 else None
    assert bring(client, f"{web_server.uri}/a%20b.zip", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_nothing_but_503s_is_given_up_and_what_came_is_kept(
    client, web_server, tmp_path: Path
) -> None:
    url = f"{web_server.uri}/a%20b.zip"
    web_server.status = lambda path, start: 503 if start >= 700_000 else None
    with pytest.raises(SourceError, match=r"given up after 7 tries.*503"):
        bring(client, url, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    web_server.status = lambda path, start: None
    web_server.requests.clear()
    assert bring(client, url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert sorted(web_server.bodies()) == [f"bytes={i}00000-{i}99999" for i in (7, 8, 9)]


def test_a_file_that_is_replaced_meanwhile_comes_in_its_new_state(
    client, web_server, tmp_path: Path
) -> None:
    new = os.urandom(450_000)

    def swap(path: str, start: int) -> None:
        if start == 300_000:
            web_server.files["/a%20b.zip"] = new

    web_server.status = swap
    assert bring(client, f"{web_server.uri}/a%20b.zip", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == new


def test_a_server_without_etags_gives_nothing_to_go_on_from(
    client, web_server, tmp_path: Path
) -> None:
    web_server.etags = False
    web_server.status = lambda path, start: 503 if start >= 700_000 else None
    for _ in range(2):
        with pytest.raises(SourceError):
            bring(client, f"{web_server.uri}/a%20b.zip", tmp_path / "a")
    assert web_server.bodies().count("bytes=0-99999") == 2
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("status", "said"), [(401, "netrc"), (403, "expired"), (400, "check the URL")]
)
def test_what_will_not_pass_is_told_at_once(client, web_server, status: int, said: str) -> None:
    web_server.status = lambda path, start: status
    with pytest.raises(
        SourceError, match=rf"a%20b.zip cannot be read \({status}.*{said}"
    ) as caught:
        http.look_at(client, f"{web_server.uri}/a%20b.zip?token=secret")
    assert len(web_server.requests) == 1
    assert "secret" not in str(caught.value)


def test_a_server_that_refuses_any_range_gives_the_file_whole(client, web_server) -> None:
    web_server.status = lambda path, start: 416 if web_server.requests[-1][1] else None
    listed = http.look_at(client, f"{web_server.uri}/a%20b.zip")
    assert read(listed, 2).content == CONTENT


def test_a_length_that_is_no_number_is_passed_over(client, web_server) -> None:
    web_server.ranged = web_server.lengths = False
    web_server.headers = {"Content-Length": "many"}
    listed = http.look_at(client, f"{web_server.uri}/a%20b.zip")
    assert listed.size is None and read(listed, 2).content == CONTENT


def test_a_handshake_that_is_cut_is_tried_again(hanging_up: str) -> None:
    with pytest.raises(SourceError, match=r"given up after 2 tries.*EOF"):
        http.look_at(http.connect(1, 1), f"{hanging_up}/a.zip")


def test_an_untrusted_certificate_is_reported_at_the_first_try(untrusted) -> None:
    address, handshakes = untrusted
    with pytest.raises(SourceError, match=r"certificate is not trusted.*REQUESTS_CA_BUNDLE"):
        http.look_at(http.connect(1, 6), f"{address}/a.zip")
    assert len(handshakes) == 1


def test_a_file_that_is_not_there_is_none(client, web_server, tmp_path: Path) -> None:
    assert http.look_at(client, f"{web_server.uri}/none.zip") is None
    assert bring(client, f"{web_server.uri}/none.zip", tmp_path / "a") is None


def test_a_file_that_vanishes_meanwhile_leaves_nothing(client, web_server, tmp_path: Path) -> None:
    web_server.status = lambda path, start: 404 if start else None
    assert bring(client, f"{web_server.uri}/a%20b.zip", tmp_path / "a") is None
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_empty(client, web_server, tmp_path: Path) -> None:
    web_server.files["/empty"] = b""
    assert read(http.look_at(client, f"{web_server.uri}/empty"), 0).content == b""
    assert bring(client, f"{web_server.uri}/empty", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b""


def test_a_server_may_ask_for_a_pause(client, web_server) -> None:
    answers = iter([429])
    web_server.headers["Retry-After"] = "3600"  # more than anybody waits for
    web_server.status = lambda path, start: next(answers, None)
    started = time.monotonic()
    assert http.look_at(client, f"{web_server.uri}/a%20b.zip")
    assert 0.04 < time.monotonic() - started < 5


@pytest.mark.parametrize("url", ["http://", "http://[::1/a.zip", "http://127.0.0.1:9/a.zip"])
def test_a_url_that_leads_nowhere_is_told(client, url: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be requested|given up after|is no URL"):
        http.look_at(client, url)
