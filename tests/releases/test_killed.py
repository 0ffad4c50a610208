"""A release that is killed, at whatever step, is done by the next one: once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from irgen.releases import store
from irgen.tracking import mlflow_store

STEPS = [
    ("irgen.releases.store", "copy_files", "after"),
    ("irgen.releases.store", "add_release", "after"),
    ("irgen.evaluation.gate", "compare", "after"),
    ("irgen.catalog.sources.s3", "put_file", "after"),
    ("irgen.releases.registry", "_find_or_create_model", "after"),
    ("irgen.releases.registry", "register", "after"),
    ("irgen.releases.store", "set_champion", "before"),
    ("irgen.releases.store", "set_champion", "after"),
    ("irgen.releases.remote", "write_champion", "after"),
    ("irgen.releases.registry", "set_aliases", "before"),
    ("irgen.releases.store", "delete_release", "after"),
]


@pytest.fixture(scope="module")
def killed(root: Path):
    """Run a release in a project, and kill it at a step."""
    command = [sys.executable, str(Path(__file__).with_name("killed_release.py"))]
    pipe = subprocess.PIPE
    server: list[subprocess.Popen[str]] = []

    def run(module: str, name: str, when: str, project: Path) -> None:
        if not server:  # only now is the environment that of the test
            server.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root))
            assert server[0].stdout.readline() == "ready\n"
        server[0].stdin.write(f"{module} {name} {when} {project}\n")
        server[0].stdin.flush()
        assert server[0].stdout.readline() == "9\n", f"{name} was not killed"

    yield run
    for each in server:
        each.stdin.close()
        each.wait(timeout=30)


@pytest.mark.slow
def test_a_release_killed_at_any_step_is_one_release_when_done_again(
    project, release, buckets, killed
):
    import boto3

    client = boto3.client("s3", endpoint_url=buckets.uri)
    client.create_bucket(Bucket="shop")
    remote = {"remote": "s3://shop/indexes", "endpoint": buckets.uri}
    project.set("release", model="irgen", keep=1, **remote)
    release()
    registry = mlflow_store.connect(project.root)
    for number, (module, name, when) in enumerate(STEPS, 2):
        project.builds(number)
        killed(module, name, when, project.root)
        served = store.read_champion(project.store)
        assert served.version in (number - 1, number)  # never none
        again = release()
        assert again["settled"], (name, again["errors"])
        assert (again["version"], again["champion"]) == (number, number), name
        assert again["previous"] == number - 1
        there = [each.version for each in store.list_releases(project.store)]
        assert there == list(range(number, max(number - 3, 0), -1)), name
        assert not list(project.store.glob(".*.tmp"))
        said = json.loads(
            client.get_object(Bucket="shop", Key="indexes/champion.json")["Body"].read()
        )
        assert said["version"] == number
        versions = registry.search_model_versions("name = 'irgen'")
        assert sorted(int(each.version) for each in versions) == there[::-1], name
        assert len({each.tags["irgen.bundle"] for each in versions}) == len(there)
        at = registry.get_model_version_by_alias("irgen", "champion")
        assert at.tags["irgen.bundle"] == again["bundle"]
    within = registry.get_experiment_by_name("digits/releases").experiment_id
    runs = registry.search_runs([within], "tags.`irgen.bundle` != ''")
    assert len(runs) == number  # one a release
