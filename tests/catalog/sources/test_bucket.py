"""A bucket's prefix is a source like a folder: what differs comes, whatever the service does."""

import hashlib
import json
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog import manifest
from irgen.catalog.changes import Change
from irgen.catalog.shards import FOLDER, Images
from irgen.catalog.sources import s3, s3_client
from irgen.catalog.sources.listing import Source
from irgen.catalog.sources.open import open_source
from irgen.catalog.sync import has_changed, sync
from irgen.errors import SourceError
from irgen.params import Download, load

Png = Callable[[int], bytes]
READ = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}
NONE = (None, None)  # neither version nor problem
SLOW = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"


@pytest.fixture
def settings(root: Path, buckets) -> Download:
    plain = load(root / "params.yaml").download
    return replace(plain, source="s3://shop/photos", endpoint=buckets.uri)


@pytest.fixture
def photos(buckets) -> dict[str, bytes]:
    """24 small objects of three labels, and what is beside images in real buckets."""
    contents = {f"{'abc'[i % 3]}/{i:02d}.png": bytes([i]) * (50 + i) for i in range(24)}
    buckets.fill("shop", {f"photos/{key}": content for key, content in contents.items()})
    buckets.fill("shop", {"photos/": b"", "photos/LICENSE.txt": b"CC0", "photos-old/x/1.png": b"?"})
    return contents


def opened(settings: Download, tmp_path: Path) -> Source:
    return open_source(settings, tmp_path / "cache")


def held(folder: Path) -> dict[str, bytes]:
    images, table = Images(folder), manifest.images(manifest.read(folder))
    return {key: images.read(sha) for key, sha in table.select("key", "sha256").iter_rows()}


def etag(content: bytes) -> str:
    return f"{hashlib.md5(content).hexdigest()}-{len(content)}"


def counts(change: Change) -> tuple[int, ...]:
    return (change.new, change.changed, change.gone, change.revision)


def gets(buckets) -> int:
    return buckets.count("GET") - buckets.count("GET", "list-type=2")


def test_a_difference_is_all_that_comes(settings, photos, buckets, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert has_changed(opened(settings, tmp_path), data)
    assert counts(sync(opened(settings, tmp_path), data)) == (24, 0, 0, 1)
    assert held(data) == photos
    shard = (data / FOLDER / "r00001-000.tar").read_bytes()
    assert not has_changed(opened(settings, tmp_path), data)

    s3.delete(s3_client.connect(buckets.uri), ["s3://shop/photos/a/00.png"])
    buckets.fill("shop", {"photos/b/01.png": b"other", "photos/d/99.png": b"new"})
    buckets.requests.clear()
    assert has_changed(opened(settings, tmp_path), data)
    assert gets(buckets) == 0 and len(buckets.requests) == 1
    assert counts(sync(opened(settings, tmp_path), data)) == (1, 1, 1, 2)
    assert gets(buckets) == 2
    del photos["a/00.png"]
    assert held(data) == photos | {"b/01.png": b"other", "d/99.png": b"new"}
    assert (data / FOLDER / "r00001-000.tar").read_bytes() == shard
    assert not has_changed(opened(settings, tmp_path), data)


@pytest.mark.slow
def test_ten_thousand_unchanged_objects_cost_one_listing(settings, buckets, tmp_path: Path) -> None:
    many = {f"photos/{i % 10}/{i:05d}.png": b"%d" % i for i in range(10_000)}
    buckets.fill("shop", many)
    shard = ("r00001-000", 0, *NONE)
    rows = [
        (key.removeprefix("photos/"), len(content), etag(content), "?", 1, *shard)
        for key, content in many.items()
    ]
    table = pl.DataFrame(rows, schema=manifest.SCHEMA, orient="row")
    manifest.write(tmp_path / "data", table, revision=1, source=settings.source)
    (tmp_path / "data" / FOLDER).mkdir()
    (tmp_path / "data" / FOLDER / "r00001-000.tar").write_bytes(bytes(10_001))
    buckets.requests.clear()
    assert not sync(opened(settings, tmp_path), tmp_path / "data")
    assert len(buckets.requests) == buckets.count("GET", "list-type=2") == 10


def test_a_third_of_503s_changes_nothing(settings, photos, buckets, tmp_path: Path) -> None:
    rng = random.Random(0)
    buckets.fault = lambda environ, answer: (
        answer("503 Slow Down", SLOW) if rng.random() < 0.3 else None
    )
    assert counts(sync(opened(settings, tmp_path), tmp_path / "data")) == (24, 0, 0, 1)
    assert held(tmp_path / "data") == photos


def test_connections_that_are_cut_change_nothing(settings, photos, buckets, tmp_path: Path) -> None:
    rng = random.Random(0)
    buckets.cut = lambda environ: rng.randrange(80) if rng.random() < 0.5 else None
    assert counts(sync(opened(settings, tmp_path), tmp_path / "data")) == (24, 0, 0, 1)
    assert held(tmp_path / "data") == photos


def test_what_came_before_the_service_failed_does_not_come_again(
    settings, photos, buckets, tmp_path: Path
) -> None:
    data, few = tmp_path / "data", replace(settings, retries=1)
    buckets.fault = lambda environ, answer: (
        answer("503 Slow Down", SLOW) if environ["PATH_INFO"].endswith("c/14.png") else None
    )
    with pytest.raises(SourceError, match=r"c/14\.png: given up after 2 tries.*503 SlowDown"):
        sync(opened(few, tmp_path), data)
    assert not (data / manifest.NAME).exists()
    buckets.fault = None
    buckets.requests.clear()
    assert counts(sync(opened(few, tmp_path), data)) == (24, 0, 0, 1)
    before = sorted(photos).index("c/14.png")
    assert gets(buckets) == 24 - before
    assert held(data) == photos
    assert {path.suffix for path in (data / FOLDER).iterdir()} == {".tar"}
    assert not has_changed(opened(few, tmp_path), data)


def test_a_service_that_is_down_is_told_and_changes_nothing(
    settings, photos, buckets, tmp_path: Path
) -> None:
    data, few = tmp_path / "data", replace(settings, retries=2)
    sync(opened(few, tmp_path), data)
    before = {p: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    buckets.fault = lambda environ, answer: answer("503 Slow Down", SLOW)
    buckets.requests.clear()
    for act in (sync, has_changed):
        with pytest.raises(SourceError, match="given up after 3 tries") as error:
            act(opened(few, tmp_path), data)
        assert "\n" not in str(error.value)
    assert len(buckets.requests) == 6
    assert {p: p.read_bytes() for p in data.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("key", ["AKIASTRANGER", "AKIATESTTESTTEST"])
def test_wrong_credentials_are_one_error_at_once(
    settings, photos, buckets, tmp_path: Path, monkeypatch, key: str
) -> None:
    def guarded(environ, answer):
        is_allowed = "AKIATESTTESTTEST" in environ.get("HTTP_AUTHORIZATION", "")
        if is_allowed and "list-type" in environ["QUERY_STRING"]:
            return None  # it may list, and not read
        code = b"AccessDenied" if is_allowed else b"InvalidAccessKeyId"
        return answer("403 Forbidden", b"<Error><Code>%s</Code></Error>" % code)

    buckets.fault = guarded
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    code = "AccessDenied" if "TEST" in key else "InvalidAccessKeyId"
    with pytest.raises(SourceError, match=rf"{code}.*use others|{code}.*AWS_ACCESS_KEY_ID"):
        sync(opened(settings, tmp_path), tmp_path / "data")
    most = 1 if key == "AKIASTRANGER" else 1 + 2 * settings.connections
    assert len(buckets.requests) <= most


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
    ],
)
def test_a_service_that_checks_signatures_takes_the_right_ones_alone(
    settings, photos, buckets, tmp_path: Path, monkeypatch, name: str, code: str
) -> None:
    """Let the server check each request and its permissions."""
    from moto import settings as moto
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.iam.models import iam_backends

    iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    iam.create_user("us-east-1", "reader")
    iam.put_user_policy("reader", "read", json.dumps(READ))
    key = iam.create_access_key("reader")
    try:
        monkeypatch.setattr(moto, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
        with monkeypatch.context() as patch:
            patch.setenv(name, "wrong")
            with pytest.raises(SourceError, match=rf"{code}.*{name}") as error:
                sync(opened(settings, tmp_path), tmp_path / "data")
            assert key.secret_access_key not in str(error.value)
            assert len(buckets.requests) == 1, "it is not tried again"
        assert sync(opened(settings, tmp_path), tmp_path / "data").new == len(photos)
    finally:
        iam_backends.reset()


def test_objects_that_are_refused_are_noted_and_the_others_come(
    settings, photos, buckets, tmp_path: Path
) -> None:
    data, few = tmp_path / "data", replace(settings, retries=1)
    refused = {
        "a/00.png": ("403 Forbidden", "AccessDenied"),
        "b/01.png": ("403 Forbidden", "InvalidObjectState"),
        "c/02.png": ("400 Bad Request", "KMS.DisabledException"),
        "a/03.png": ("500 Internal Server Error", "InternalError"),
    }

    def refuse(environ, answer):
        status, code = refused.get(environ["PATH_INFO"][-8:], ("", ""))
        return answer(status, b"<Error><Code>%s</Code></Error>" % code.encode()) if code else None

    buckets.fault = refuse
    assert sync(opened(few, tmp_path), data, max_unreadable=0.2).images == 20
    reasons = manifest.unreadable(manifest.read(data)).select("key", "problem")
    assert all(refused[key][1] in problem for key, problem in reasons.iter_rows())
    assert len(reasons) == 4 and has_changed(opened(few, tmp_path), data)
    buckets.fault = None
    assert counts(sync(opened(few, tmp_path), data)) == (4, 0, 0, 2)
    assert held(data) == photos


@pytest.mark.parametrize("code", ["ExpiredToken", "NoSuchBucket"])
def test_what_fails_for_the_whole_bucket_midway_is_one_error(
    settings, photos, buckets, tmp_path: Path, code: str
) -> None:
    def fail(environ, answer):
        late = environ["PATH_INFO"] > "/shop/photos/b/10.png"
        error = b"<Error><Code>%s</Code></Error>" % code.encode()
        return answer("400 Bad Request", error) if late else None

    buckets.fault = fail
    with pytest.raises(SourceError, match=code):
        sync(opened(settings, tmp_path), tmp_path / "data", max_unreadable=1)
    assert not (tmp_path / "data" / manifest.NAME).exists()


def test_an_object_replaced_during_the_sync_comes_as_it_is_now(
    settings, photos, buckets, tmp_path: Path
) -> None:
    once, replaced = threading.Lock(), b"replaced" * 9

    def swap(environ, answer):
        if environ["PATH_INFO"].endswith("b/07.png") and once.acquire(blocking=False):
            buckets.fill("shop", {"photos/b/07.png": replaced})
        return

    buckets.fault = swap
    sync(opened(settings, tmp_path), tmp_path / "data")
    assert held(tmp_path / "data") == photos | {"b/07.png": replaced}
    assert not has_changed(opened(settings, tmp_path), tmp_path / "data")


def test_an_object_that_vanishes_during_the_sync_is_gone(
    settings, photos, buckets, tmp_path: Path
) -> None:
    client = s3_client.connect(buckets.uri)

    def vanish(environ, answer):
        if environ["PATH_INFO"].endswith("b/07.png") and environ["REQUEST_METHOD"] == "GET":
            s3.delete(client, ["s3://shop/photos/b/07.png"])
        return

    buckets.fault = vanish
    assert sync(opened(settings, tmp_path), tmp_path / "data").images == 23
    del photos["b/07.png"]
    assert held(tmp_path / "data") == photos


def test_a_truncated_object_is_not_taken(settings, photos, buckets, tmp_path: Path) -> None:
    few = replace(settings, retries=2)

    def truncated(environ, answer):
        if not environ["PATH_INFO"].endswith("b/07.png"):
            return None
        etag = next(
            s3.list_objects(s3_client.connect(buckets.uri), "s3://shop/photos/b/07.png")
        ).etag
        return answer("200 OK", bytes([7]) * 20, {"ETag": f'"{etag}"'})

    buckets.fault = truncated
    with pytest.raises(SourceError, match=r"b/07\.png.*20 of 57 bytes are announced"):
        sync(opened(few, tmp_path), tmp_path / "data")
    assert not (tmp_path / "data" / manifest.NAME).exists()


def test_versions_are_in_the_manifest(settings, photos, buckets, tmp_path: Path) -> None:
    client, data = s3_client.connect(buckets.uri), tmp_path / "data"
    client.boto.put_bucket_versioning(Bucket="shop", VersioningConfiguration={"Status": "Enabled"})
    client.boto.put_object(Bucket="shop", Key="photos/d/1.png", Body=b"1")
    sync(opened(settings, tmp_path), data)
    version = s3.look_at(client, "s3://shop/photos/d/1.png").version
    table = manifest.read(data).filter(pl.col("version").is_not_null())
    assert table.select("key", "version").rows() == [("d/1.png", version)]


def test_the_order_of_arrival_does_not_show(settings, photos, tmp_path: Path) -> None:
    one, many = replace(settings, connections=1), replace(settings, connections=16)
    for folder, chosen in (("one", one), ("many", many)):
        sync(opened(chosen, tmp_path), tmp_path / folder, shard_bytes=4000)
    files = [
        {p.relative_to(tmp_path / f): p.read_bytes() for p in (tmp_path / f).rglob("*.tar")}
        for f in ("one", "many")
    ]
    assert len(files[0]) > 3 and files[0] == files[1]
    assert manifest.read(tmp_path / "one").equals(manifest.read(tmp_path / "many"))


def test_folders_in_a_bucket_count_as_local_ones(settings, buckets, tmp_path: Path) -> None:
    names = ["set/train/cat/1.PNG", "set/test/cat/2.jpg", "set/train/owl/", "set/.git/x.png"]
    buckets.fill("shop", {f"photos/{name}": b"1" for name in names})
    listing = opened(replace(settings, source="s3://shop/photos/"), tmp_path).load()
    assert [entry.key for entry in listing.entries] == ["test/cat/2.jpg", "train/cat/1.PNG"]
    assert listing.empty_folders == ("train/owl/",)
    whole = opened(replace(settings, source="s3://shop"), tmp_path).load()
    assert next(entry.key for entry in whole.entries) == "set/test/cat/2.jpg"


def test_a_prefix_without_images_is_told(settings, photos, tmp_path: Path) -> None:
    empty = replace(settings, source="s3://shop/phot")
    with pytest.raises(SourceError, match=r"s3://shop/phot/ holds no image"):
        opened(empty, tmp_path).load()


def test_a_list_in_a_bucket_names_images_beside_it(
    settings, photos, buckets, tmp_path: Path
) -> None:
    data, chosen = tmp_path / "data", replace(settings, source="s3://shop/photos/list.csv")
    rows = "path,label,price\na/00.png,x,1\nb/01.png,y,2\nnone.png,z,3\n"
    buckets.fill("shop", {"photos/list.csv": rows.encode()})
    assert sync(opened(chosen, tmp_path), data).images == 2
    table = manifest.read(data)
    assert table.select("key", "label", "metadata").rows()[2] == ("none.png", "z", {"price": 3})
    assert held(data) == {key: photos[key] for key in ("a/00.png", "b/01.png")}
    buckets.requests.clear()
    assert not has_changed(opened(chosen, tmp_path), data)
    assert gets(buckets) == 1  # the list itself
    buckets.fill("shop", {"photos/b/01.png": b"other"})
    assert has_changed(opened(chosen, tmp_path), data)
    assert sync(opened(chosen, tmp_path), data).changed == 1
    buckets.fill("shop", {"photos/list.csv": rows.replace("y", "q").encode()})
    assert has_changed(opened(chosen, tmp_path), data)
    assert sync(opened(chosen, tmp_path), data).relabelled == 1
    buckets.fill("shop", {"photos/list.csv": b"path,label\nnone.png,z\n"})
    with pytest.raises(SourceError, match="none of the 1 images it names is there"):
        sync(opened(chosen, tmp_path), data)


def test_many_connections_outlast_a_burst_of_503s(settings, buckets, tmp_path: Path) -> None:
    """Expect success although botocore's retries, shared among all calls of a client, would run
    out."""
    buckets.fill("shop", {f"photos/a/{i:03d}.png": b"%d" % i for i in range(60)})
    failing = {f"{i:03d}.png": 6 for i in range(60)}

    def fault(environ, answer):
        name = environ["PATH_INFO"].rpartition("/")[2]
        failing[name] = failing.get(name, 0) - 1
        return answer("503 Slow Down", SLOW) if failing[name] >= 0 else None

    buckets.fault = fault
    many = replace(settings, connections=32)
    assert sync(opened(many, tmp_path), tmp_path / "data").new == 60


def test_odd_keys_survive_and_what_they_hold_decides(settings, buckets, png, tmp_path) -> None:
    odd = ["a//1.png", "a/1.png", "b/q?x#y%20 z+&=.png", "b/😀.png", "../up.png"]
    odd += ["b/no-ending", "b/1.jpg_large", ".NET shirt/1.png", "/lead/1.png", "./dot/1.png"]
    left_out = {"b/README": b"text", "c/": b"", "b/@eaDir/1.png/S.png": png(1), "b/1.cr2": b"x"}
    contents = {key: png(number) for number, key in enumerate(odd)}
    buckets.fill("odd", {f"set/{key}": value for key, value in {**contents, **left_out}.items()})
    listing = opened(replace(settings, source="s3://odd/set/"), tmp_path).load()
    assert (listing.skipped, listing.ignored) == ({"": 1, ".cr2": 1}, {"@eaDir/": 1})
    assert listing.empty_folders == ("c/",)
    assert {entry.key: entry.read().content for entry in listing.entries if entry.read} == contents
