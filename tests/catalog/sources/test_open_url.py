"""An archive or list at a URL is fetched, checked and read as a local one."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from irgen.catalog import manifest
from irgen.catalog.shards import Images
from irgen.catalog.sources.open import open_source
from irgen.catalog.sync import has_changed, sync
from irgen.errors import SourceError
from irgen.files.workspace import Workspace
from irgen.params import Download, Params, load
from irgen.stages import download

Png = Callable[[int], bytes]


def zipped(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "project")


@pytest.fixture
def of(root: Path) -> Callable[..., Params]:
    plain = load(root / "params.yaml")

    def make(source: str, **more: object) -> Params:
        section = replace(plain.download, source=source, retries=3, **more)
        return replace(plain, download=section)

    return make


def no_log(metrics: dict[str, float], step: int) -> None:
    raise AssertionError("nothing has steps here")


@pytest.fixture(params=["http", "s3"])
def shelf(request) -> tuple[str, dict, Callable[[str, bytes], None], Callable[[], int]]:
    """Return the URL of a folder on a web server or in a bucket, its settings, a function that puts
    a file there, and one that counts the bodies that were read."""
    if request.param == "http":
        web = request.getfixturevalue("web_server")
        return (
            f"{web.uri}/sets",
            {},
            lambda name, content: web.files.update({f"/sets/{name}": content}),
            lambda: len(web.bodies()),
        )
    buckets = request.getfixturevalue("buckets")
    buckets.fill("shop", {})
    return (
        "s3://shop/sets",
        {"endpoint": buckets.uri},
        lambda name, content: buckets.fill("shop", {f"sets/{name}": content}),
        lambda: buckets.count("GET") - buckets.count("GET", "list-type"),
    )


def test_an_archive_is_fetched_when_it_has_changed(
    shelf, workspace: Workspace, of, png: Png, capsys
) -> None:
    folder, more, put, bodies = shelf
    params = of(f"{folder}/shop.zip", **more)
    put("shop.zip", zipped({"set/cat/1.png": png(1), "set/dog/1.png": png(2)}))
    assert download.may_have_changed(params, workspace)
    assert bodies() == 0
    assert download.run(params, workspace, no_log)["images/new"] == 2
    assert manifest.read_revision(workspace.stage("download")) == (1, f"{folder}/shop.zip")
    asked = bodies()
    assert asked > 0
    assert not download.may_have_changed(params, workspace)
    assert download.run(params, workspace, no_log) == {}
    assert "source unchanged" in capsys.readouterr().out
    assert bodies() == asked
    put("shop.zip", zipped({"set/cat/1.png": png(1), "set/dog/1.png": png(3)}))
    assert download.may_have_changed(params, workspace)
    assert download.run(params, workspace, no_log)["images/changed"] == 1
    assert len(manifest.read(workspace.stage("download"))) == 2
    assert len(Images(workspace.stage("download"))) == 3, "training has what is gone"
    assert not [path for path in workspace.cache.rglob("*") if "shop" in path.name]


def test_an_archive_that_was_fetched_and_refused_is_not_fetched_again(
    shelf, workspace: Workspace, of, png: Png
) -> None:
    folder, more, put, bodies = shelf
    put("shop.zip", zipped({"cat/1.png": png(1)}))
    with pytest.raises(SourceError, match=rf"{folder}/shop.zip.*larger than.*max_gigabytes"):
        download.run(of(f"{folder}/shop.zip", max_gigabytes=2e-8, **more), workspace, no_log)
    assert bodies() == 0
    put("bomb.zip", squeezed(b"\0" * 100_000))
    with pytest.raises(SourceError, match=rf"{folder}/bomb.zip unpacks to more.*max_gigabytes"):
        download.run(of(f"{folder}/bomb.zip", max_gigabytes=5e-6, **more), workspace, no_log)
    asked = bodies()
    assert download.run(of(f"{folder}/bomb.zip", **more), workspace, no_log)["images/new"] == 1
    assert bodies() == asked


def squeezed(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.png", content)
    return file.getvalue()


def test_a_damaged_archive_is_told_by_its_url(shelf, workspace: Workspace, of, png: Png) -> None:
    folder, more, put, _ = shelf
    put("shop.zip", zipped({"cat/1.png": png(1)})[:-30])
    with pytest.raises(SourceError, match=rf"^{folder}/shop.zip is truncated or damaged"):
        download.run(of(f"{folder}/shop.zip", **more), workspace, no_log)


def test_an_expected_checksum_is_verified_and_stands_for_the_file(
    shelf, workspace: Workspace, of, png: Png
) -> None:
    folder, more, put, bodies = shelf
    content = zipped({"cat/1.png": png(1)})
    put("shop.zip", content)
    right, wrong = hashlib.sha256(content).hexdigest().upper(), "0" * 64
    with pytest.raises(SourceError, match=rf"has the SHA-256 {right.lower()}, not {wrong}"):
        download.run(of(f"{folder}/shop.zip", sha256=wrong, **more), workspace, no_log)
    assert not (workspace.stage("download") / manifest.NAME).exists()
    params = of(f"{folder}/shop.zip", sha256=right, **more)
    assert download.run(params, workspace, no_log)["images/new"] == 1
    asked = bodies()
    put("shop.zip", b"something else")
    assert not download.may_have_changed(params, workspace)
    assert download.run(params, workspace, no_log) == {}
    assert bodies() == asked


def test_a_list_is_checked_too(shelf, workspace: Workspace, of, png: Png) -> None:
    folder, more, put, _ = shelf
    put("list.csv", b"path,label\n1.png,cat\n")
    put("1.png", png(1))
    with pytest.raises(SourceError, match="has the SHA-256"):
        download.run(of(f"{folder}/list.csv", sha256="0" * 64, **more), workspace, no_log)


@pytest.mark.parametrize("name", ["none.zip", "none.csv"])
def test_a_file_that_is_not_there_is_told(shelf, of, workspace: Workspace, name: str) -> None:
    folder, more, _, _ = shelf
    with pytest.raises(SourceError, match=rf"{folder}/{name} is not there; check download.source"):
        download.run(of(f"{folder}/{name}", **more), workspace, no_log)


def test_a_list_on_a_web_server_names_images_beside_it(
    web_server, root: Path, tmp_path: Path, png: Png
) -> None:
    plain = load(root / "params.yaml").download
    settings: Download = replace(plain, source=f"{web_server.uri}/sets/list.csv?key=secret")
    data = tmp_path / "data"

    def opened():
        return open_source(settings, tmp_path / "cache")

    rows = "path,label\ncat one/1 #.png,cat\nowl/2.png,owl\nnone.png,owl\n"
    web_server.files["/sets/list.csv"] = rows.encode()
    web_server.files["/sets/cat%20one/1%20%23.png"] = png(1)
    web_server.files["/sets/owl/2.png"] = png(2)
    assert sync(opened(), data).images == 2
    table = manifest.read(data)
    assert table["key"].to_list() == ["cat one/1 #.png", "none.png", "owl/2.png"]
    assert "secret" not in str(manifest.read_revision(data)) + repr(opened())
    before = opened().stamp
    web_server.files["/sets/owl/2.png"] = png(3)
    web_server.files["/sets/list.csv"] = f"{rows}more.png,owl\n".encode()
    assert opened().stamp != before and has_changed(opened(), data)
    web_server.requests.clear()
    assert sync(opened(), data).changed == 1
    bodies = [path for path, wanted in web_server.requests if wanted != "bytes=0-0"]
    assert bodies == ["/sets/list.csv?key=secret", "/sets/owl/2.png"]
