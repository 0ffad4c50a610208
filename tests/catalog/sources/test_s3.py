"""Buckets are read and written whole and checked, whatever the service does meanwhile."""

import hashlib
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from irgen.catalog.sources import s3, s3_client, transfer
from irgen.catalog.sources.s3_client import Client
from irgen.catalog.sources.transfer import read
from irgen.errors import SourceError


@pytest.fixture
def client(buckets) -> Client:
    client = s3_client.connect(buckets.uri)
    client.boto.create_bucket(Bucket="shop")
    buckets.requests.clear()
    return client


def put(client: Client, **contents: bytes) -> None:
    for key, content in contents.items():
        client.boto.put_object(Bucket="shop", Key=key, Body=content)


def get(client: Client, key: str) -> bytes | None:
    remote_file = s3.look_at(client, f"s3://shop/{key}")
    body = remote_file and read(remote_file, client.retries)
    return body.content if body else None


def slow_down(share: float, seed: int = 0):
    """Answer a share of the requests with 503 SlowDown."""
    rng = random.Random(seed)

    def fault(environ, answer):
        if rng.random() >= share:
            return None
        xml = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
        return answer("503 Slow Down", xml, {"Content-Type": "application/xml"})

    return fault


def refuse(status: str, code: str, times: int = 10**9):
    left = [times]

    def fault(environ, answer):
        if not left[0]:
            return None
        left[0] -= 1
        return answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

    return fault


def test_a_bucket_is_listed_by_pages_in_order(client, buckets) -> None:
    buckets.fill("shop", {f"a/{i:04d}": b"x" for i in range(1050)} | {"b": b"y"})
    objects = list(s3.list_objects(client, "s3://shop/a/"))
    assert [one.key for one in objects] == [f"a/{i:04d}" for i in range(1050)]
    assert objects[0] == s3.Object("a/0000", 1, hashlib.md5(b"x").hexdigest())
    assert len(buckets.requests) == buckets.count("GET", "list-type=2") == 2
    assert s3.list_keys(client, "s3://shop/b") == ["b"]
    assert s3.list_keys(client, "s3://shop/none") == []


def test_what_is_written_is_read_and_deleted(client, tmp_path: Path) -> None:
    content = os.urandom(1000)
    (tmp_path / "a").write_bytes(content)
    s3.put_file(client, tmp_path / "a", "s3://shop/x/a")
    assert s3.look_at(client, "s3://shop/x/a").size == 1000
    assert get(client, "x/a") == content
    assert s3.get_file(client, "s3://shop/x/a", tmp_path / "back" / "a")
    assert (tmp_path / "back" / "a").read_bytes() == content
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["a"]
    s3.delete(client, ["s3://shop/x/a", "s3://shop/x/never"])
    assert s3.look_at(client, "s3://shop/x/a") is None
    assert s3.get_file(client, "s3://shop/x/a", tmp_path / "b") is False
    assert not (tmp_path / "b").exists()


def test_an_empty_object_is_an_empty_file(client, tmp_path: Path) -> None:
    put(client, empty=b"")
    assert get(client, "empty") == b""
    assert s3.get_file(client, "s3://shop/empty", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_large_file_goes_and_comes_in_parts(
    client, buckets, tmp_path: Path, monkeypatch, share: float
) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    monkeypatch.setattr(transfer, "PIECE", 1 << 20)
    content = random.Random(0).randbytes((12 << 20) + 7)
    (tmp_path / "big").write_bytes(content)
    buckets.fault = slow_down(share)
    s3.put_file(client, tmp_path / "big", "s3://shop/big")
    assert buckets.count("PUT", "partNumber") >= 3
    assert s3.get_file(client, "s3://shop/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert sum(asked[2] != "" for asked in buckets.requests) >= 13


def test_an_upload_that_fails_leaves_nothing(client, buckets, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    (tmp_path / "big").write_bytes(bytes(11 << 20))

    def fault(environ, answer):
        if "partNumber=3" in environ["QUERY_STRING"]:
            return answer("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>")
        return None

    buckets.fault = fault
    with pytest.raises(SourceError, match="AccessDenied"):
        s3.put_file(client, tmp_path / "big", "s3://shop/big")
    assert s3.look_at(client, "s3://shop/big") is None
    assert "Uploads" not in client.boto.list_multipart_uploads(Bucket="shop")


def test_json_is_written_only_if_the_condition_holds(client) -> None:
    url = "s3://shop/champion.json"
    assert s3.get_json(client, url) is None
    assert s3.put_json(client, url, {"v": 0}, replacing="0" * 32) is None
    first = s3.put_json(client, url, {"v": 1}, new=True)
    assert s3.get_json(client, url) == ({"v": 1}, first)
    assert s3.put_json(client, url, {"v": 2}, new=True) is None
    second = s3.put_json(client, url, {"v": 2}, replacing=first)
    assert s3.put_json(client, url, {"v": 3}, replacing=first) is None
    assert s3.put_json(client, url, {"v": 2}, replacing=first) == second  # our own lost answer
    assert s3.get_json(client, url) == ({"v": 2}, second)
    assert s3.put_json(client, url, {"v": 4})


def test_a_third_of_503s_is_no_trouble(client, buckets) -> None:
    put(client, **{f"{i:02d}": bytes([i]) * 100 for i in range(40)})
    buckets.fault = slow_down(0.3)
    for key in s3.list_keys(client, "s3://shop/"):
        assert get(client, key) == bytes([int(key)]) * 100


def test_nothing_but_503s_is_given_up_in_one_line(client, buckets) -> None:
    put(client, a=b"1")
    buckets.fault = slow_down(1.0)
    buckets.requests.clear()
    with pytest.raises(SourceError, match=r"s3://shop/: given up after 13 tries.*503 SlowDown"):
        s3.list_keys(client, "s3://shop/")
    assert len(buckets.requests) == 13


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ("403 Forbidden", "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("403 Forbidden", "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("403 Forbidden", "AccessDenied", "s3:ListBucket"),
        ("403 Forbidden", "RequestTimeTooSkewed", "clock"),
        ("400 Bad Request", "ExpiredToken", "log in again"),
        ("404 Not Found", "NoSuchBucket", "bucket's name"),
    ],
)
def test_what_will_not_pass_is_told_at_once(client, buckets, status, code, said) -> None:
    buckets.fault = refuse(status, code)
    with pytest.raises(SourceError, match=rf"s3://shop/: {code}.*{said}") as error:
        s3.list_keys(client, "s3://shop/")
    assert len(buckets.requests) == 1
    assert "\n" not in str(error.value) and "of-the-tests" not in str(error.value)


def test_a_bucket_that_is_not_there_is_told_at_once(client, buckets) -> None:
    with pytest.raises(SourceError, match="NoSuchBucket"):
        s3.list_keys(client, "s3://other/")
    assert len(buckets.requests) == 1


def test_no_credentials_are_told_at_once(client, buckets, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    buckets.requests.clear()
    with pytest.raises(SourceError, match="Unable to locate credentials; give credentials"):
        s3.list_keys(s3_client.connect(buckets.uri), "s3://shop/")
    assert buckets.requests == []


def test_a_service_that_is_not_there_is_given_up_in_bounded_time(client) -> None:
    away = s3_client.connect("http://127.0.0.1:9", retries=3)
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"given up after 4 tries.*Could not connect"):
        s3.list_keys(away, "s3://shop/")
    assert time.monotonic() - started < 5


def test_an_untrusted_certificate_is_reported_at_the_first_try(client, untrusted) -> None:
    address, handshakes = untrusted
    with pytest.raises(SourceError, match=r"certificate is not trusted.*AWS_CA_BUNDLE"):
        s3.list_keys(s3_client.connect(address, retries=6), "s3://shop/")
    assert len(handshakes) == 1


def test_a_handshake_that_is_cut_is_tried_again(client, hanging_up: str) -> None:
    with pytest.raises(SourceError, match=r"given up after 2 tries.*EOF"):
        s3.list_keys(s3_client.connect(hanging_up, retries=1), "s3://shop/")


@pytest.mark.parametrize("url", ["s3://", "s3:///key", "shop/key"])
def test_a_url_without_a_bucket_is_a_clear_error(url: str) -> None:
    with pytest.raises(SourceError, match="names no bucket"):
        s3.split_url(url)


def test_a_cut_connection_is_taken_up_where_it_broke(client, buckets) -> None:
    content = os.urandom(300_000)
    put(client, a=content)
    cuts = iter([70_000, 0, 100_000])
    buckets.cut = lambda environ: next(cuts, None) if environ["REQUEST_METHOD"] == "GET" else None
    buckets.requests.clear()
    assert get(client, "a") == content
    ranges = [asked[2] for asked in buckets.requests if asked[0] == "GET"]
    assert ranges == ["", *["bytes=70000-299999"] * 2, "bytes=170000-299999"]


def test_a_download_that_is_given_up_goes_on_where_it_was(
    client, buckets, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE", 100_000)
    content = os.urandom(1_000_000)
    put(client, a=content)
    few = s3_client.connect(buckets.uri, retries=1)

    def late(environ, answer):
        start = int(environ.get("HTTP_RANGE", "bytes=0-")[6:].split("-")[0])
        return answer("503 Slow Down") if start >= 700_000 else None

    buckets.fault = late
    with pytest.raises(SourceError, match="what has arrived is kept"):
        s3.get_file(few, "s3://shop/a", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    buckets.fault = None
    buckets.requests.clear()
    assert s3.get_file(few, "s3://shop/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content
    starts = {int(asked[2][6:].split("-")[0]) for asked in buckets.requests if asked[2]}
    assert starts == {700_000, 800_000, 900_000}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_changes_between_two_tries_is_fetched_anew(
    client, buckets, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE", 100_000)
    put(client, a=os.urandom(500_000))
    few = s3_client.connect(buckets.uri, retries=0)
    buckets.fault = lambda environ, answer: (
        answer("503 Slow Down") if "400000-" in environ.get("HTTP_RANGE", "") else None
    )
    with pytest.raises(SourceError):
        s3.get_file(few, "s3://shop/a", tmp_path / "a")
    buckets.fault = None
    content = os.urandom(500_000)
    put(client, a=content)
    assert s3.get_file(few, "s3://shop/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_object_replaced_while_it_is_read_comes_whole_in_its_new_state(
    client, buckets, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE", 100_000)
    old, new = os.urandom(500_000), os.urandom(400_000)
    put(client, a=old)
    replaced = []

    def once(environ, answer):
        if "300000-" in environ.get("HTTP_RANGE", "") and not replaced:
            replaced.append(1)
            put(client, a=new)
        return

    buckets.fault = once
    assert s3.get_file(client, "s3://shop/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == new
    assert replaced


def test_a_truncated_object_is_not_taken(client, buckets, tmp_path: Path) -> None:
    put(client, a=b"0123456789")
    etag = hashlib.md5(b"0123456789").hexdigest()

    def truncated(environ, answer):
        if environ["REQUEST_METHOD"] == "GET":
            return answer("200 OK", b"01234", {"ETag": f'"{etag}"'})
        return None

    buckets.fault = truncated
    with pytest.raises(SourceError, match="5 of 10 bytes are announced"):
        get(client, "a")
    with pytest.raises(SourceError, match="5 of 10 bytes are announced"):
        s3.get_file(client, "s3://shop/a", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_bytes_that_are_not_those_of_the_etag_are_fetched_again(client, buckets) -> None:
    put(client, a=b"0123456789")
    etag = hashlib.md5(b"0123456789").hexdigest()
    spoilt = [1, 2]

    def flipped(environ, answer):
        if environ["REQUEST_METHOD"] == "GET" and spoilt:
            spoilt.pop()
            return answer("200 OK", b"0123456?89", {"ETag": f'"{etag}"'})
        return None

    buckets.fault = flipped
    assert get(client, "a") == b"0123456789"
    spoilt.extend(range(99))
    with pytest.raises(SourceError, match="its md5 is"):
        get(client, "a")


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256", "SHA1"])
def test_a_checksum_that_the_service_keeps_is_verified(
    client, buckets, algorithm, tmp_path
) -> None:
    client.boto.put_object(Bucket="shop", Key="a", Body=b"abc", ChecksumAlgorithm=algorithm)
    remote_file = s3.look_at(client, "s3://shop/a")
    assert list(remote_file.sums) == [algorithm.lower()]
    assert read(remote_file, 0).content == b"abc"
    assert s3.get_file(client, "s3://shop/a", tmp_path / "a")
    wrong = remote_file.sums | {algorithm.lower(): "0" * len(remote_file.sums[algorithm.lower()])}
    with pytest.raises(SourceError, match="has arrived damaged"):
        transfer.fetch(replace(remote_file, sums=wrong), tmp_path / "b", connections=1, retries=0)
    assert not (tmp_path / "b").exists()


def test_version_ids_are_told_and_a_payer_and_a_key_are_sent(client, buckets, monkeypatch) -> None:
    client.boto.put_bucket_versioning(Bucket="shop", VersioningConfiguration={"Status": "Enabled"})
    put(client, a=b"1")
    remote_file = s3.look_at(client, "s3://shop/a")
    assert remote_file.version and read(remote_file, 0).version == remote_file.version
    monkeypatch.setenv("IRGEN_SSE_CUSTOMER_KEY", "not base64")
    with pytest.raises(SourceError, match="32 bytes in base64"):
        s3_client.connect(buckets.uri, customer_key=True)
    monkeypatch.setenv("IRGEN_SSE_CUSTOMER_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
    other = s3_client.connect(buckets.uri, customer_key=True, requester_pays=True)
    assert "MDEy" not in repr(other) and "0123" not in repr(other)
    buckets.headers.clear()
    assert get(other, "a") == b"1"
    for headers in buckets.headers:
        assert headers["HTTP_X_AMZ_REQUEST_PAYER"] == "requester"
        assert headers["HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION_CUSTOMER_ALGORITHM"] == "AES256"
    s3.list_keys(other, "s3://shop/")
    assert buckets.headers[-1]["HTTP_X_AMZ_REQUEST_PAYER"] == "requester"
