"""A machine with only the package serves what is released to a bucket, and follows it."""

import subprocess
import sys
import threading

import pytest

from irgen.commands import cli
from irgen.errors import ReleaseError, SourceError
from irgen.index.index import Index
from irgen.releases import replica, store

from ..serve.conftest import start_service
from ..waiting import wait_until

URL = "s3://shop/indexes"
FOLLOW = "import pathlib, sys; from irgen.releases.replica import follow as f; "
FOLLOW += "f(pathlib.Path(sys.argv[1]), sys.argv[2])"


@pytest.fixture
def bucket(project, buckets, monkeypatch):
    buckets.fill("shop", {})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", buckets.uri)
    project.set("release", remote=URL)
    return buckets


@pytest.fixture
def release_next(project, release):
    """Releases another index to the bucket."""

    def release_number(number: int) -> None:
        project.builds(number)
        assert release("--force")["settled"]

    return release_number


def champion(root) -> str:
    return replica.locate(root, URL).name[:4]


def leftovers(root) -> list[str]:
    return [path.name for path in store.path_in(root).glob(".*.tmp")]


def test_two_replicas_follow_releases_and_rollbacks(bucket, release_next, irgen, tmp_path):
    roots = [tmp_path / "first", tmp_path / "second"]
    release_next(1)
    assert [replica.follow(root, URL) for root in roots] == [True, True]
    bucket.requests.clear()
    assert not replica.follow(roots[0], URL)
    assert {path for _, path, _ in bucket.requests} == {"/shop/indexes/champion.json"}
    release_next(2)
    assert replica.follow(roots[0], URL)
    assert [champion(root) for root in roots] == ["0002", "0001"]
    irgen("rollback")
    bucket.requests.clear()
    assert replica.follow(roots[0], URL) and not replica.follow(roots[1], URL)
    assert [champion(root) for root in roots] == ["0001", "0001"]
    assert not bucket.count("GET", ".npy"), "it had that release"
    with Index.open(replica.locate(roots[0], URL)) as index:
        index.verify()


def test_a_replica_keeps_the_release_before_and_one_more(bucket, release_next, tmp_path):
    for number in (1, 2, 3, 4):
        release_next(number)
        replica.follow(tmp_path / "replica", URL)
    kept = store.list_releases(store.path_in(tmp_path / "replica"))
    assert [listed.version for listed in kept] == [4, 3, 2]


def test_what_was_pulled_stays_while_the_bucket_is_down(bucket, release_next, tmp_path):
    release_next(1)
    replica.follow(tmp_path / "replica", URL)
    bucket.fault = lambda environ, answer: answer("503 Slow Down")
    with pytest.raises(SourceError, match=r"champion\.json"):
        replica.follow(tmp_path / "replica", URL)
    assert champion(tmp_path / "replica") == "0001"


def test_a_damaged_release_takes_no_other_s_place_until_it_is_whole(
    bucket, project, release_next, tmp_path
):
    release_next(1)
    replica.follow(tmp_path / "replica", URL)
    release_next(2)
    key = f"indexes/{project.champion()}/codebooks.npy"
    content = bucket.content("shop", key)
    bucket.fill("shop", {key: content[:-1] + bytes([content[-1] ^ 1])})
    with pytest.raises(ReleaseError, match="release 2"):
        replica.follow(tmp_path / "replica", URL)
    assert champion(tmp_path / "replica") == "0001" and not leftovers(tmp_path / "replica")
    bucket.fill("shop", {key: content})
    assert replica.follow(tmp_path / "replica", URL)
    assert champion(tmp_path / "replica") == "0002"


def test_a_bucket_without_releases_says_so(bucket, tmp_path, capsys):
    with pytest.raises(ReleaseError, match="has no champion yet"):
        replica.follow(tmp_path, URL)
    with pytest.raises(ReleaseError, match="no release was pulled from s3://shop/indexes yet"):
        replica.locate(tmp_path, URL)
    for options in (["--from", "/folder"], ["--from", URL, "--candidate", "latest", "--shadow"]):
        assert cli.main(["serve", "--root", str(tmp_path), *options]) == 2
    assert "write s3://bucket/prefix" in capsys.readouterr().err


@pytest.mark.slow
def test_a_pull_that_is_killed_is_done_by_the_next_look(bucket, release_next, tmp_path):
    release_next(1)
    root = tmp_path / "replica"
    replica.follow(root, URL)
    release_next(2)
    for number in range(1, 8):  # files that have come
        reached, killed = threading.Event(), threading.Event()
        gets: list[str] = []

        def hold(environ, answer, number=number, gets=gets, reached=reached, killed=killed):
            gets += [environ["PATH_INFO"]] * (environ["REQUEST_METHOD"] == "GET")
            if len(gets) > number:
                reached.set()
                killed.wait(60)

        bucket.fault = hold
        child = subprocess.Popen([sys.executable, "-c", FOLLOW, str(root), URL])
        assert reached.wait(60), f"there are fewer than {number} files"
        child.kill()
        child.wait()
        killed.set()
        bucket.fault = None
        assert champion(root) == "0001"
    assert replica.follow(root, URL) and champion(root) == "0002"
    assert not leftovers(root)
    with Index.open(replica.locate(root, URL)) as index:
        index.verify()


@pytest.mark.slow
def test_services_of_two_machines_follow_the_bucket_and_outlive_it(
    bucket, project, release_next, irgen, tmp_path
):
    roots = [tmp_path / "first", tmp_path / "second"]
    services = []

    def start(root):
        root.mkdir(exist_ok=True)
        log = tmp_path / f"{root.name}.log"
        services.append(start_service(root, log, "--from", URL, "--every", "0.2"))
        return services[-1]

    def answers(service, version: int) -> bool:
        answer = service.post("/v1/search/upload?k=3", files={"images": project.query})
        return answer.status_code == 200 and answer.json()["index"]["release"] == version

    try:
        first, second = (start(root) for root in roots)
        wait_until(lambda: "has no champion yet" in first.get("/readyz").text)
        release_next(1)
        wait_until(lambda: answers(first, 1) and answers(second, 1))
        release_next(2)
        wait_until(lambda: answers(first, 2) and answers(second, 2))
        irgen("rollback")
        wait_until(lambda: answers(first, 1) and answers(second, 1))
        bucket.fault = lambda environ, answer: answer("503 Slow Down")
        wait_until(lambda: "cannot be followed" in (first.get("/v1/info").json()["problem"] or ""))
        second.process.kill()
        again = start(roots[1])
        wait_until(lambda: answers(first, 1) and answers(again, 1))
        bucket.fault = None
        wait_until(lambda: first.get("/v1/info").json()["problem"] is None)
        added = first.post("/v1/items", files={"images": ("a.png", project.query)})
        assert added.status_code == 403
    finally:
        for service in services:
            service.process.kill()
            service.process.wait()
