"""A machine without releases goes on from those in the bucket."""

import shutil

import pytest

from irgen.index.index import Index


@pytest.fixture
def bucket(project, buckets):
    import boto3

    boto3.client("s3", endpoint_url=buckets.uri).create_bucket(Bucket="shop")
    project.set("release", remote="s3://shop/indexes/", endpoint=buckets.uri)
    return buckets


def released(project, release, *numbers: int) -> None:
    for number in numbers:
        project.builds(number)
        release()


def test_a_fresh_machine_fetches_what_is_served(project, release, irgen, bucket):
    released(project, release, 1, 2)
    irgen("rollback")
    before = {path.name: path.read_bytes() for path in project.store.glob("champion/*.npy")}
    shutil.rmtree(project.store)
    assert irgen("releases", "pull").status == 0
    assert project.champion().startswith("0001")
    after = {path.name: path.read_bytes() for path in project.store.glob("champion/*.npy")}
    assert before and after == before
    with Index.open(project.store / "champion") as index:
        index.verify()
        assert len(index.search([project.query], 4).ids[0]) == 4
    assert irgen("releases", "pull", 2).status == 0
    assert project.champion().startswith("0001") and len(project.folders()) == 3
    assert irgen("rollback", "2").status == 0


def test_a_champion_that_was_fetched_knows_which_one_it_took_the_place_of(
    project, release, irgen, bucket
):
    released(project, release, 1, 2)
    shutil.rmtree(project.store)
    irgen("releases", "pull")
    done = irgen("rollback")
    assert done.status == 2 and "there is no release 1" in done.err and "available: 2" in done.err
    irgen("releases", "pull", 1)
    assert irgen("rollback").out == "Release 1 is served now.\n"


def test_a_machine_that_only_searches_follows_what_is_served(project, release, irgen, bucket):
    released(project, release, 1)
    elsewhere = project.store.with_name("elsewhere")
    shutil.copytree(project.store, elsewhere, symlinks=True)
    released(project, release, 2)
    shutil.rmtree(project.store)
    elsewhere.rename(project.store)
    assert project.champion().startswith("0001")
    assert irgen("releases", "pull").status == 0
    assert project.champion().startswith("0002") and len(project.folders()) == 3


@pytest.mark.slow
def test_a_machine_that_follows_keeps_no_more_than_it_is_told(project, release, irgen, bucket):
    released(project, release, 1, 2, 3, 4)
    shutil.rmtree(project.store)
    for version in (1, 2, 3):
        assert irgen("releases", "pull", version).status == 0
    assert len(project.folders()) == 4  # and the link to the champion
    project.set("release", keep=1)
    assert irgen("releases", "pull").status == 0
    assert [name[:4] for name in project.folders()] == ["0002", "0003", "0004", "cham"]


def test_a_fresh_machine_judges_against_what_is_served_and_counts_on(project, release, bucket):
    released(project, release, 1, 2)
    shutil.rmtree(project.store)
    project.builds(3, bad=True)
    worse = release()
    assert (worse["status"], worse["version"], worse["champion"]) == (3, 3, 2)
    project.builds(2)
    assert not release()["new"]


def test_a_fresh_machine_that_cannot_see_the_bucket_releases_nothing(project, irgen, bucket):
    bucket.fault = lambda environ, answer: answer("403 Forbidden")
    done = irgen("release")
    assert done.status == 2 and "s3://shop/indexes/champion.json" in done.err
    assert len(done.err.splitlines()) == 1 and project.folders() == []


def test_a_release_that_was_damaged_in_the_bucket_is_not_served(project, release, irgen, bucket):
    import boto3

    released(project, release, 1)
    key = f"indexes/{project.champion()}/codebooks.npy"
    boto3.client("s3", endpoint_url=bucket.uri).put_object(Bucket="shop", Key=key, Body=b"other")
    shutil.rmtree(project.store)
    done = irgen("releases", "pull")
    assert done.status == 2 and project.folders() == []


def test_what_is_not_there_is_said(project, irgen, bucket):
    done = irgen("releases", "pull")
    assert done.status == 2 and "has no champion; available: none" in done.err
    project.set("release", remote="")
    done = irgen("releases", "pull")
    assert done.status == 2 and "release: remote is empty" in done.err
