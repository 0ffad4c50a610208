"""Bucket and MLflow follow the release store, now or when they answer again."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from irgen.errors import TrackingError
from irgen.releases import registry as model_registry
from irgen.tracking import locations, mlflow_store


@pytest.fixture
def registry(project) -> MlflowClient:
    """Use a model registry in the project, and return its client."""
    project.set("release", model="irgen")
    return mlflow_store.connect(project.root)


@pytest.fixture
def bucket(project, buckets):
    """Return a bucket that releases are copied to."""
    import boto3

    boto3.client("s3", endpoint_url=buckets.uri).create_bucket(Bucket="shop")
    project.set("release", remote="s3://shop/indexes", endpoint=buckets.uri)
    buckets.requests.clear()
    return buckets


def keys(bucket) -> set[str]:
    import boto3

    client = boto3.client("s3", endpoint_url=bucket.uri)
    return {each["Key"] for each in client.list_objects_v2(Bucket="shop").get("Contents", [])}


def content(bucket, key: str) -> dict:
    import boto3

    client = boto3.client("s3", endpoint_url=bucket.uri)
    return json.loads(client.get_object(Bucket="shop", Key=key)["Body"].read())


def versions(registry: MlflowClient) -> dict[str, str]:
    """Return the name of the release of each registered version."""
    versions = registry.search_model_versions("name = 'irgen'")
    return {str(each.version): each.tags["irgen.release"] for each in versions}


def champion(registry: MlflowClient) -> str:
    return str(registry.get_model_version_by_alias("irgen", "champion").version)


def test_a_release_is_one_version_and_the_champion_has_the_alias(project, release, registry):
    first = release()
    assert first["settled"], first["errors"]
    assert first["registered"] == "1" and champion(registry) == "1"
    assert not release()["new"] and versions(registry) == {"1": first["name"]}
    project.builds(2)
    release()
    project.builds(3, bad=True)
    kept = release()
    assert kept["status"] == 3 and kept["registered"] == "3"
    assert champion(registry) == "2"
    aliases = registry.get_registered_model("irgen").aliases
    assert {name: str(at) for name, at in aliases.items()} == {"champion": "2", "candidate": "3"}
    assert versions(registry).keys() == {"1", "2", "3"}
    about = registry.get_model_version("irgen", "2")
    assert about.tags["irgen.bundle"] and about.tags["irgen.data_revision"] == "7"
    assert "The gate: precision/4 is" in about.description
    assert "The gate: precision/4" in registry.get_model_version("irgen", "3").description
    release("--force")
    assert champion(registry) == "3"
    assert "The gate: released by force" in registry.get_model_version("irgen", "3").description
    assert set(registry.get_registered_model("irgen").aliases) == {"champion"}


def test_a_release_belongs_to_its_build_which_says_what_is_served(
    project, release, registry, monkeypatch
):
    monkeypatch.setenv("IRGEN_BUILD", "flow 1")
    within = mlflow_store.find_experiment(registry, project.root, "digits")
    tags = {"irgen.parent_of": "flow-1"}
    parent = registry.create_run(within, tags=tags).info.run_id
    said = release()
    run = registry.get_run(registry.get_model_version("irgen", "1").run_id)
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["irgen.release"] == said["name"]
    run_tags = registry.get_run(parent).data.tags
    assert run_tags["irgen.champion"] == said["name"] and run_tags["irgen.data_revision"] == "7"


def test_a_release_is_copied_to_the_bucket_once_and_pruned_there_too(project, release, bucket):
    first = release()
    assert first["pushed"] == f"s3://shop/indexes/{first['name']}"
    own = {
        f"indexes/{first['name']}/{path.relative_to(project.store / first['name'])}"
        for path in (project.store / first["name"]).rglob("*")
        if path.is_file()
    }
    assert keys(bucket) == own | {"indexes/champion.json"}
    assert content(bucket, "indexes/champion.json")["name"] == first["name"]
    bucket.requests.clear()
    release()
    assert bucket.count("PUT", "safetensors") == 0
    project.set("release", keep=1)
    for number in (2, 3, 4):
        project.builds(number)
        release()
    there = {key.split("/")[1] for key in keys(bucket)}
    assert there == {*project.folders(), "champion.json"} - {"champion"}
    assert {int(name[:4]) for name in there - {"champion.json"}} == {2, 3, 4}


def test_a_bucket_that_is_down_stops_no_release_and_gets_it_later(project, release, bucket):
    bucket.fault = lambda environ, answer: answer("503 Slow Down")
    project.set("release", remote="")
    release()
    project.set("release", remote="s3://shop/indexes")
    project.builds(2)
    said = release()
    assert said["status"] == 0 and said["champion"] == 2
    assert not said["settled"] and said["pushed"] == ""
    assert "the bucket is not up to date: s3://shop/indexes/0002" in said["err"]
    bucket.fault = None
    later = release()
    assert later["settled"] and not later["new"] and later["version"] == 2
    assert content(bucket, "indexes/champion.json")["version"] == 2


def test_a_push_that_broke_off_is_gone_on_with(project, release, bucket):
    release()
    project.builds(2)
    count = 0

    def after_five(environ, answer):
        nonlocal count
        count += environ["REQUEST_METHOD"] == "PUT"
        return answer("403 Forbidden") if count > 5 else None

    bucket.fault = after_five
    assert not release()["settled"]
    bucket.fault = None
    assert content(bucket, "indexes/champion.json")["version"] == 1
    bucket.requests.clear()
    assert release()["settled"]
    whole = len([key for key in keys(bucket) if "/0002-" in key])
    assert bucket.count("PUT", "/0002-") == whole - 5
    assert content(bucket, "indexes/champion.json")["version"] == 2


@pytest.mark.slow
def test_mlflow_that_is_down_stops_no_release_and_gets_all_of_them_later(
    project, release, mlflow_server, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    project.set("release", model="irgen")
    for number in (1, 2):
        project.builds(number)
        said = release()
        assert said["champion"] == number and said["registered"] == "" and not said["settled"]
        assert (
            "the model registry is not up to date" in said["err"]
            and "Connection refused" in said["err"]
        )
    mlflow_server.start()
    said = release()
    assert said["settled"] and said["version"] == 2 and not said["new"]
    client = mlflow_store.connect(project.root)
    assert sorted(versions(client).values()) == project.folders()[:2]
    assert [versions(client)[number][:4] for number in ("1", "2")] == ["0001", "0002"]
    assert champion(client) == "2"
    assert not release()["new"] and len(versions(client)) == 2


@pytest.mark.slow
def test_what_is_not_kept_leaves_the_registry_as_well(project, release, registry, monkeypatch):
    project.set("release", keep=1)
    for number in (1, 2, 3):
        project.builds(number)
        release()
    forgotten = registry.get_model_version("irgen", "2").model_id
    with monkeypatch.context() as patch:  # a registry that never had the first one
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root}/other.db")
        project.builds(4)
        assert release()["settled"]
    assert versions(registry).keys() == {"1", "2", "3"}
    project.builds(5)
    release()
    assert {name[:4] for name in versions(registry).values()} == {"0001", "0003", "0005"}
    project.builds(6)
    release()
    assert {name[:4] for name in versions(registry).values()} == {"0001", "0005", "0006"}
    assert champion(registry) == max(versions(registry), key=int)
    within = mlflow_store.find_experiment(registry, project.root, "digits/releases")
    assert forgotten not in {each.model_id for each in registry.search_logged_models([within])}


def test_what_the_registry_will_not_forget_is_told_and_keeps_no_other_one_here(
    project, release, registry, monkeypatch
):
    project.set("release", keep=1)
    refused, delete = {"0001", "0002"}, model_registry.delete_version

    def refusing(client, model, bundle, **options):
        if any(name.endswith(bundle[:8]) and name[:4] in refused for name in project.folders()):
            raise TrackingError("permission denied")
        delete(client, model, bundle, **options)

    monkeypatch.setattr(model_registry, "delete_version", refusing)
    for number in (1, 2, 3, 4):
        project.builds(number)
        said = release()
    assert said["champion"] == 4 and not said["settled"]
    (message,) = said["errors"]
    assert message.startswith("the model registry still has the old release 1: MLflow at ")
    assert message.endswith("permission denied")
    refused.remove("0001")
    project.builds(5, bad=True)
    assert "still has the old release 2" in release()["err"]
    assert [name[:4] for name in project.folders()[:4]] == ["0002", "0003", "0004", "0005"]
    refused.clear()
    assert release()["settled"] and len(versions(registry)) == 3


@pytest.mark.slow
def test_what_the_registry_cannot_forget_now_stays_until_it_can(
    project, release, mlflow_server, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    project.set("release", model="irgen", keep=1)
    mlflow_server.start()
    for number in (1, 2, 3):
        project.builds(number)
        release()
    mlflow_server.kill()
    project.builds(4)
    assert not release()["settled"]
    assert [name[:4] for name in project.folders()[:4]] == ["0001", "0002", "0003", "0004"]
    mlflow_server.start()
    assert release()["settled"]
    left = ["0002", "0003", "0004"]
    assert [name[:4] for name in project.folders()[:3]] == left
    client = mlflow_store.connect(project.root)
    assert sorted(name[:4] for name in versions(client).values()) == left


def downloaded(project, registry: MlflowClient, version: str) -> Path:
    """Download the files of a registered model, and return their folder."""
    from mlflow.artifacts import download_artifacts

    source = registry.get_model_version("irgen", version).source
    return Path(download_artifacts(source, tracking_uri=locations.tracking_uri(project.root)))


def test_the_index_is_with_the_model_or_if_it_is_large_pointed_to(project, release, registry):
    release()
    files = downloaded(project, registry, "1")
    assert (files / "model_code.py").is_file() and (
        files / "code" / "irgen" / "__init__.py"
    ).is_file()
    assert len(list(files.rglob("index.json"))) == 1
    project.set("release", max_model_megabytes=0)
    project.builds(2)
    release()
    files = downloaded(project, registry, "2")
    assert not list(files.rglob("index.json"))
    (pointer,) = files.rglob("pointer.json")
    assert json.loads(pointer.read_text())["path"] == str(project.store / project.champion())
