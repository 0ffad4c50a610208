"""A list may name its images by address, on web servers and in buckets."""

import gzip
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from irgen.catalog import manifest
from irgen.catalog.failures import IN_A_ROW
from irgen.catalog.shards import Images
from irgen.catalog.sources.addresses import name_address
from irgen.catalog.sources.open import open_source
from irgen.catalog.sync import has_changed, sync
from irgen.errors import SourceError
from irgen.files.workspace import Workspace
from irgen.params import Download, load
from irgen.stages import download

Png = Callable[[int], bytes]


@pytest.fixture
def settings(root: Path, tmp_path: Path, web_server) -> Download:
    plain = load(root / "params.yaml").download
    return replace(plain, source=str(tmp_path / "list.csv"), retries=1, max_unreadable=0.5)


def write(settings: Download, paths: Iterable[str]) -> None:
    rows = "".join(f'"{path}",x\n' for path in paths)
    Path(settings.source).write_text(f"path,label\n{rows}")


def read(settings: Download, folder: Path) -> dict[str, bytes]:
    sync(open_source(settings), folder, max_unreadable=settings.max_unreadable)
    images, table = Images(folder), manifest.images(manifest.read(folder))
    return {key: images.read(sha) for key, sha in table.select("key", "sha256").iter_rows()}


def problems(folder: Path) -> dict[str, str]:
    table = manifest.unreadable(manifest.read(folder))
    return dict(table.select("key", "problem").iter_rows())


def test_web_bucket_and_file_are_read_from_one_list(
    settings, web_server, buckets, png: Png, tmp_path: Path
) -> None:
    settings = replace(settings, endpoint=buckets.uri)
    web_server.files["/i/a%20b.png"] = png(1)
    buckets.fill("shop", {"i/2.png": png(2), "i/c d.png": png(4)})
    (tmp_path / "3.png").write_bytes(png(3))
    paths = [f"{web_server.uri}/i/a b.png", "s3://shop/i/2.png", "3.png", "S3A://shop/i/c%20d.png"]
    write(settings, paths)
    assert read(settings, tmp_path / "data") == {
        f"{web_server.uri}/i/a%20b.png": png(1),
        "s3://shop/i/2.png": png(2),
        "3.png": png(3),
        "s3://shop/i/c%20d.png": png(4),
    }
    assert not has_changed(open_source(settings), tmp_path / "data")


def test_an_unchanged_image_is_looked_at_and_not_fetched(
    settings, web_server, png: Png, tmp_path: Path
) -> None:
    web_server.files |= {f"/{number}.png": png(number) for number in range(3)}
    write(settings, [f"{web_server.uri}/{number}.png" for number in range(3)])
    read(settings, tmp_path / "data")
    web_server.files["/1.png"] = png(7)
    web_server.requests.clear()
    assert read(settings, tmp_path / "data")[f"{web_server.uri}/1.png"] == png(7)
    assert len(web_server.bodies()) == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "netrc"), (403, "403"), (429, "429"), (451, "451"), (500, "500"), (503, "503")],
)
def test_one_that_the_server_refuses_is_noted_and_the_others_come(
    settings, web_server, png: Png, tmp_path: Path, status: int, said: str
) -> None:
    web_server.files |= {f"/{number}.png": png(number) for number in range(3)}
    write(settings, [f"{web_server.uri}/{number}.png" for number in range(3)])
    web_server.status = lambda path, start: status if path == "/1.png" else None
    assert len(read(settings, tmp_path / "data")) == 2
    assert said in problems(tmp_path / "data")[f"{web_server.uri}/1.png"]
    web_server.status = lambda path, start: None
    assert has_changed(open_source(settings), tmp_path / "data")
    assert len(read(settings, tmp_path / "data")) == 3
    web_server.status = lambda path, start: status if path == "/1.png" else None
    assert len(read(settings, tmp_path / "data")) == 3, "the old content stays"


@pytest.mark.parametrize("status", [404, 410])
def test_one_that_is_gone_is_absent(settings, web_server, png, tmp_path: Path, status) -> None:
    web_server.files |= {f"/{number}.png": png(number) for number in range(3)}
    write(settings, [f"{web_server.uri}/{number}.png" for number in range(3)])
    web_server.status = lambda path, start: status if path == "/1.png" else None
    assert len(read(settings, tmp_path / "data")) == 2
    absent = manifest.absent(manifest.read(tmp_path / "data"))
    assert absent["key"].to_list() == [f"{web_server.uri}/1.png"]


@pytest.mark.parametrize(
    ("location", "said"),
    [("/1.png", "redirects"), ("file:///etc/passwd", "file:"), ("ftp://127.0.0.1/1.png", "ftp:")],
)
def test_a_redirect_to_nowhere_or_to_a_file_of_this_machine_is_not_followed(
    settings, web_server, png: Png, tmp_path: Path, location: str, said: str
) -> None:
    web_server.files["/0.png"] = png(0)
    web_server.headers = {"Location": location}
    web_server.status = lambda path, start: 302 if path == "/1.png" else None
    write(settings, [f"{web_server.uri}/0.png", f"{web_server.uri}/1.png"])
    assert len(read(settings, tmp_path / "data")) == 1
    assert said in problems(tmp_path / "data")[f"{web_server.uri}/1.png"]


def test_a_redirect_to_another_address_is_followed(settings, web_server, png, tmp_path) -> None:
    web_server.files["/0.png"] = png(0)
    web_server.headers = {"Location": "/0.png"}
    web_server.status = lambda path, start: 302 if path == "/1.png" else None
    write(settings, [f"{web_server.uri}/1.png"])
    assert read(settings, tmp_path / "data") == {f"{web_server.uri}/1.png": png(0)}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\n<!DOCTYPE html><title>Log in</title>", "web page"),
        (b"", "empty file"),
        (gzip.compress(b"cut off")[:-5], "packed by gzip, and cut off"),
        (b"\x1f\x8bdamaged", "packed by gzip, and damaged"),
    ],
    ids=["web page", "empty", "cut off", "damaged"],  # gzip writes the time: no name for a test
)
def test_what_is_sent_in_place_of_an_image_is_a_problem_and_the_old_content_stays(
    settings, web_server, png: Png, tmp_path: Path, content: bytes, problem: str
) -> None:
    web_server.files |= {f"/{number}.png": png(number) for number in range(3)}
    write(settings, [f"{web_server.uri}/{number}.png" for number in range(3)])
    before = read(settings, tmp_path / "data")
    web_server.files["/1.png"] = content
    assert read(settings, tmp_path / "data") == before
    assert problem in problems(tmp_path / "data")[f"{web_server.uri}/1.png"]


def test_an_image_that_is_sent_packed_is_unpacked(settings, web_server, png, tmp_path) -> None:
    web_server.headers = {"Content-Encoding": "gzip"}
    web_server.files["/1.png"] = gzip.compress(png(1))
    write(settings, [f"{web_server.uri}/1.png"])
    assert read(settings, tmp_path / "data") == {f"{web_server.uri}/1.png": png(1)}


def test_a_list_that_is_sent_packed_is_unpacked(settings, web_server, png, tmp_path) -> None:
    web_server.headers = {"Content-Encoding": "gzip"}
    web_server.files["/1.png"] = gzip.compress(png(1))
    web_server.files["/list.csv"] = gzip.compress(b"path,label\n1.png,x\n")
    settings = replace(settings, source=f"{web_server.uri}/list.csv")
    assert read(settings, tmp_path / "data") == {"1.png": png(1)}


def test_a_packing_that_is_not_read_is_a_problem(settings, web_server, png, tmp_path) -> None:
    web_server.files |= {f"/{number}.png": png(number) for number in range(3)}
    write(settings, [f"{web_server.uri}/{number}.png" for number in range(3)])
    before = read(settings, tmp_path / "data")
    web_server.headers = {"Content-Encoding": "br"}
    with pytest.raises(SourceError, match=r"is sent packed as 'br'.*or packed by gzip"):
        read(replace(settings, max_unreadable=0.0), tmp_path / "data")
    web_server.headers = {}
    assert read(settings, tmp_path / "data") == before


def test_a_body_shorter_than_announced_is_a_problem(
    settings, web_server, png: Png, tmp_path: Path
) -> None:
    web_server.files |= {f"/{number}.png": png(number) for number in range(3)}
    web_server.ranged = False
    web_server.cut = lambda path, start: 3 if path == "/1.png" else None
    write(settings, [f"{web_server.uri}/{number}.png" for number in range(3)])
    assert len(read(settings, tmp_path / "data")) == 2
    assert "given up" in problems(tmp_path / "data")[f"{web_server.uri}/1.png"]


def test_a_server_that_is_not_there_is_asked_once_and_the_others_go_on(
    settings, web_server, buckets, png: Png, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    web_server.files |= {f"/{number}.png": png(number) for number in range(30)}
    good = [f"{web_server.uri}/{number}.png" for number in range(30)]
    lost = [f"http://127.0.0.1:{port}/{number}.png" for number in range(IN_A_ROW + 2)]
    bucket = ["s3://nobody/1.png", "s3://nobody/2.png"]
    write(settings, good + lost + bucket)
    settings = replace(settings, endpoint=buckets.uri, connections=1)
    assert len(read(settings, tmp_path / "data")) == 30
    reasons = problems(tmp_path / "data")
    assert "refused" in reasons[lost[0]] and set(reasons) == set(lost)
    assert len(manifest.absent(manifest.read(tmp_path / "data"))) == len(bucket)


def test_when_every_server_is_down_the_run_stops(settings, tmp_path: Path, web_server) -> None:
    web_server.status = lambda path, start: 503
    write(settings, [f"{web_server.uri}/{number}.png" for number in range(100)])
    with pytest.raises(SourceError, match=rf"down: {IN_A_ROW} images in a row"):
        open_source(settings).load()


@pytest.mark.parametrize(
    "address",
    ["gs://shop/1.png", "ftp://h/1.png", "http://", "http://[bad/1.png", "http://:80/1", "s3://"],
)
def test_what_is_no_readable_address_has_its_reason(
    settings, web_server, png: Png, tmp_path: Path, address: str
) -> None:
    web_server.files["/0.png"] = png(0)
    write(settings, [f"{web_server.uri}/0.png", address])
    assert len(read(settings, tmp_path / "data")) == 1
    assert len(problems(tmp_path / "data")) == 1


def test_a_signature_is_used_and_never_kept(
    settings, web_server, png: Png, tmp_path: Path, capsys
) -> None:
    web_server.files |= {"/0.png": png(0), "/1.png": png(1)}
    signature = "X-Amz-Credential=me&X-Amz-Signature=5ecret5ecret"
    web_server.status = lambda path, start: None if path.endswith(signature) else 403
    paths = [f"{web_server.uri}/{number}.png?{signature}" for number in range(3)]
    write(settings, [*paths, f"{web_server.uri}/9.png?token=5ecret"])
    data = tmp_path / "data"
    assert set(read(settings, data)) == {f"{web_server.uri}/{number}.png" for number in range(2)}
    assert not any(b"5ecret" in path.read_bytes() for path in data.rglob("*") if path.is_file())
    renewed = signature.replace("5ecret5ecret", "an0ther")
    web_server.status = lambda path, start: None if path.endswith(renewed) else 403
    write(settings, [f"{web_server.uri}/{number}.png?{renewed}" for number in range(3)])
    assert not sync(open_source(settings), data, max_unreadable=0.5)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://h/i?id=5", "https://h/i?id=5"),
        ("https://h/i.jpg?sv=2024&sig=x&se=1&w=3", "https://h/i.jpg?w=3"),
        ("https://h/i.jpg?se=1", "https://h/i.jpg?se=1"),
        ("https://h/i.jpg?Expires=1&Signature=2&Key-Pair-Id=3&Policy=4", "https://h/i.jpg"),
        ("https://h/i.jpg?GoogleAccessId=a&X-Goog-Signature=b", "https://h/i.jpg"),
        ("https://h/i.jpg?AWSAccessKeyId=a&OSSAccessKeyId=b&security-token=c", "https://h/i.jpg"),
        ("https://h/i.jpg?author=me&key=cat", "https://h/i.jpg?author=me&key=cat"),
        ("https://h/i.jpg?apikey=me&access_token=x", "https://h/i.jpg"),
        ("https://h/%C3%A9.jpg", "https://h/%C3%A9.jpg"),
        ("https://h/é.jpg", "https://h/%C3%A9.jpg"),
    ],
)
def test_an_image_is_named_by_its_address_without_what_lets_one_in(address: str, name: str) -> None:
    assert name_address(address) == name


def test_a_list_on_a_web_server_reads_no_file_of_this_machine(
    settings, web_server, png: Png, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(png(5))
    web_server.files |= {"/sets/0.png": png(0), "/sets/1%202.png": png(1)}
    bad = [
        f"{tmp_path}/secret.png",
        f"file://{tmp_path}/secret.png",
        "../../secret.png",
        "C:\\1.png",
    ]
    rows = ["0.png", "1%202.png", f"{web_server.uri}/sets/0.png", *bad]
    text = "path,label\n" + "".join(f"{row},x\n" for row in rows)
    web_server.files["/sets/list.csv"] = text.encode()
    settings = replace(settings, source=f"{web_server.uri}/sets/list.csv", max_unreadable=1)
    assert len(read(settings, tmp_path / "data")) == 3
    assert set(problems(tmp_path / "data")) == set(bad)


def test_a_list_on_a_web_server_tries_again_what_it_could_not_have(
    settings, web_server, root: Path, png: Png, tmp_path: Path, capsys
) -> None:
    workspace = Workspace.at(tmp_path)
    web_server.files |= {f"/{number}.png": png(number) for number in range(3)}
    web_server.files["/list.csv"] = b"path,label\n0.png,x\n1.png,x\n2.png,x\n9.png,x\n"
    web_server.status = lambda path, start: 403 if path == "/1.png" else None
    here = replace(settings, source=f"{web_server.uri}/list.csv")
    params = replace(load(root / "params.yaml"), download=here)
    download.run(params, workspace, lambda *_: None)
    output = capsys.readouterr().out
    assert "1 images cannot be had; the next update tries again:" in output
    assert "1 of 4 images that the list names are not there:\n  9.png" in output
    web_server.status = lambda path, start: None
    assert download.may_have_changed(params, workspace)
    assert download.run(params, workspace, lambda *_: None)["images/new"] == 1
    assert not download.may_have_changed(params, workspace)
