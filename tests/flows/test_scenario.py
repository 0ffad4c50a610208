"""A living database from end to end: real servers of S3, Prefect and MLflow on loopback, and the
project's deployments on a real worker. Somebody puts images into a bucket; the rest happens."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
import yaml

from flows import events, graph, training_revision
from irgen.catalog.sources.arrays import list_digits
from irgen.encoding.cache import map_shard

from .. import server_program
from ..bucket_server import BucketServer
from ..mlflow_server import MlflowServer
from .conftest import ROOT, PrefectServer, until

pytestmark = [pytest.mark.slow, pytest.mark.scenario]

TRAINING = {"pairs", "tokenizer", "retriever"}
SMALL = {
    "tokenizer": {"levels": 2, "codebook": 8, "width": 16, "steps": 10},
    "retriever": {"width": 16, "layers": 1, "heads": 2, "steps": 10},
    "encoder": {"options": {"patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 2}},
    "index": {"fresh_beams": 10},
    "evaluate": {"cutoffs": [1, 10], "beams": 10, "candidates": 40},
    "report": {"gallery": 1, "confusions": 1},
    "gate": {"margin": 1.0, "minimum": 0.0},
    "compute": {"batch_size": 32, "threads": 1, "device": "cpu"},
}
WORKER = ("worker", "start", "--pool", "irgen", "--limit", "5")
OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
LONG = 420.0  # seconds; a flow run takes one or two minutes on a machine of its own


def digits(labels: str) -> Iterator[tuple[str, bytes]]:
    """Keys and contents of the real digits of some labels."""
    return ((each.key, each.read()) for each in list_digits().entries if each.key[0] in labels)


class Living:
    """A project whose images are in a bucket, and the servers around it."""

    def __init__(
        self, root: Path, buckets: BucketServer, prefect: PrefectServer, mlflow: MlflowServer
    ) -> None:
        self.root, self.buckets, self.server, self.mlflow = root, buckets, prefect, mlflow
        self.known, self.unseen = digits("01234567"), digits("89")
        self.deployments: dict[str, str] = {}
        self.log = root.parent / "worker.log"
        self.environment = os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "IRGEN_ROOT": str(root),
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": mlflow.uri,
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": "of-the-tests-and-nothing-else",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(root.parent / "no-aws"),
            "AWS_SHARED_CREDENTIALS_FILE": str(root.parent / "no-aws"),
            "DVC_SITE_CACHE_DIR": str(root.parent / "dvc-site"),
            "DVC_GLOBAL_CONFIG_DIR": str(root.parent / "dvc-global"),
            "DVC_SYSTEM_CONFIG_DIR": str(root.parent / "dvc-system"),
        }

    def do(self, *command: str, root: Path | None = None) -> str:
        """Run a command in the project, and return its output."""
        line = list(command) if command[0] == "git" else [sys.executable, "-m", *command]
        done = subprocess.run(
            line,
            cwd=root or self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LONG,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def upload(self, images: Iterator[tuple[str, bytes]], count: int) -> dict[str, bytes]:
        """Put the next ``count`` images into the bucket; return them by key."""
        taken = dict(next(images) for _ in range(count))
        self.buckets.fill("shop", {f"photos/{key}": content for key, content in taken.items()})
        return taken

    def post(self, event: str) -> None:
        """Post an event as a bucket's notification does."""
        about = {
            "id": str(uuid4()),
            "event": event,
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": "bucket.shop"},
        }
        self.server.ask("/events", [about])

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the payloads of the events of a name that this project sent."""
        asked = {"filter": {"event": {"name": [event]}}, "limit": 50}
        sent = self.server.ask("/events/filter", asked)["events"]
        return [
            each["payload"] for each in sent if each["resource"].get("irgen.root") == str(self.root)
        ]

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return the started runs of a deployment, oldest first."""
        asked = {
            "flow_runs": {"deployment_id": {"any_": [self.deployments[flow]]}},
            "sort": "START_TIME_ASC",
        }
        flow_runs = self.server.ask("/flow_runs/filter", asked)
        return [run for run in flow_runs if run["start_time"]]

    def ended(self, flow: str, before: list[dict[str, Any]]) -> dict[str, Any]:
        """Wait for the first run of a deployment, not in ``before``, that released something or
        failed, and return it."""
        ids = {run["id"] for run in before}

        def over() -> list[dict[str, Any]]:
            flow_runs = [run for run in self.runs(flow) if run["id"] not in ids]
            final = [run for run in flow_runs if run["state"]["type"] in OVER]
            return [run for run in final if run["state"]["name"] not in ("Dropped", "Unchanged")]

        (run, *_) = until(over, f"no {flow} came to its end", self.log.read_text)
        assert run["state"]["type"] == "COMPLETED", run["state"]["message"] + self.log.read_text()
        return run

    def outcomes(self, run: dict[str, Any]) -> dict[str, str]:
        """Return the outcome of each stage of a flow run."""
        asked = {
            "artifacts": {"key": {"any_": ["stages"]}},
            "flow_runs": {"id": {"any_": [run["id"]]}},
            "sort": "CREATED_DESC",
        }
        rows = json.loads(self.server.ask("/artifacts/filter", asked)[0]["data"])
        return {row["stage"]: row["outcome"] for row in rows}

    def ran(self, run: dict[str, Any]) -> set[str]:
        return {stage for stage, outcome in self.outcomes(run).items() if outcome == "ran"}

    def champion(self) -> int:
        """Return the version of the champion in MLflow's model registry."""
        path = "/api/2.0/mlflow/registered-models/alias?name=irgen&alias=champion"
        with urllib.request.urlopen(self.mlflow.uri + path, timeout=20) as answer:
            return int(json.load(answer)["model_version"]["version"])

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.root / "data" / "catalog" / f"{name}.parquet")

    def encoded(self) -> dict[str, int]:
        """Count the images that each encoder has encoded."""
        stores = (self.root / ".cache" / "encodings").iterdir()
        return {
            store.name: sum(len(map_shard(path).keys) for path in store.glob("*.safetensors"))
            for store in stores
        }

    def search(self, images: dict[str, bytes]) -> dict[str, list[str]]:
        """Return the ids of all hits of ``irgen search`` for each image. Ten training steps do not
        separate images, so their order means nothing."""
        folder = self.root.parent / "asked"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        paths = [folder / key.replace("/", "-") for key in images]
        for path, content in zip(paths, images.values(), strict=True):
            path.write_bytes(content)
        said = self.do("irgen", "search", "--json", "-k", "300", *map(str, paths))
        answers = json.loads(said)
        return {
            key: [hit["id"] for hit in answer["hits"]]
            for key, answer in zip(images, answers, strict=True)
        }


@pytest.fixture(scope="module")
def living(
    tmp_path_factory: pytest.TempPathFactory,
    bucket_server: BucketServer,
    prefect_server: PrefectServer,
    empty_store: Path,
) -> Iterator[Living]:
    """Build and release a project by its deployment on 240 digits without 8 and 9."""
    folder = tmp_path_factory.mktemp("living")
    bucket_server.reset()
    mlflow = MlflowServer(folder / "mlflow", empty_store)
    made = Living(folder / "project", bucket_server, prefect_server, mlflow)
    made.upload(made.known, 240)
    bucket_server.fill("store", {})
    copy_project(made)
    try:
        mlflow.start()
        deploy(made)
        with run_worker(made):
            before = made.runs("build")
            prefect_server.ask(f"/deployments/{made.deployments['build']}/create_flow_run", {})
            run = made.ended("build", before)
            assert run["state"]["name"] == "Released", run["state"]["message"]
            assert made.ran(run) == set(graph.read(made.root))
            yield made
    finally:
        mlflow.kill()


@contextmanager
def run_worker(living: Living) -> Iterator[None]:
    """Run a Prefect worker for the project's deployments until the block ends."""
    command = [sys.executable, "-m", "prefect", *WORKER]
    cwd = living.root.parent
    worker = server_program.start(command, living.log, living.environment, cwd)
    try:
        yield
    finally:
        server_program.end(worker)


def copy_project(living: Living) -> None:
    """Copy the project as a clone has it, with small parameters and the servers' addresses."""
    root = living.root
    root.mkdir()
    for name in ("irgen", "flows"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "training.yaml", "prefect.yaml", ".gitignore", ".dvcignore"):
        shutil.copyfile(ROOT / name, root / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in SMALL.items():
        params[section] |= values
    params["download"] |= {"source": "s3://shop/photos", "endpoint": living.buckets.uri}
    params["release"] |= {"remote": "s3://store/served", "endpoint": living.buckets.uri}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    living.do("git", "init", "-q")
    living.do("dvc", "init", "-q")
    living.do("dvc", "remote", "add", "-q", "-d", "store", "s3://store/dvc")
    living.do("dvc", "remote", "modify", "-q", "store", "endpointurl", living.buckets.uri)


def deploy(living: Living) -> None:
    """Deploy ``prefect.yaml`` by the commands of its first lines."""
    living.do(
        "prefect", "--no-prompt", "work-pool", "create", "irgen", "-t", "process", "--overwrite"
    )
    living.do("prefect", "--no-prompt", "deploy", "--all")
    deployments = living.server.ask("/deployments/filter", {})
    living.deployments = {each["name"]: each["id"] for each in deployments}


@pytest.fixture(scope="module")
def updated(living: Living) -> dict[str, Any]:
    """Twelve images are uploaded, and an event says so: the state before, and the update's run."""
    before = {
        "champion": living.champion(),
        "encoded": living.encoded(),
        "requests": len(living.buckets.requests),
        "retrained": living.runs("retrain"),
    }
    runs = living.runs("update")
    new = living.upload(living.known, 12)
    living.post(events.CHANGED)
    return before | {"new": new, "run": living.ended("update", runs)}


def test_new_images_are_found_and_nothing_is_trained(
    living: Living, updated: dict[str, Any]
) -> None:
    run, new = updated["run"], updated["new"]
    assert run["created_by"]["type"] == "AUTOMATION" and run["state"]["name"] == "Released"
    assert "12 new, 0 changed, 0 gone; 252 images" in run["state"]["message"]
    assert living.ran(run) == set(graph.read(living.root)) - TRAINING
    since = living.buckets.requests[updated["requests"] :]
    read = [path for method, path, _ in since if method == "GET" and "/photos/" in path]
    assert sorted(read) == sorted(f"/shop/photos/{key}" for key in new)
    assert living.encoded() == {name: was + 12 for name, was in updated["encoded"].items()}

    assert living.champion() > updated["champion"]
    served = (living.root / "releases" / "champion").readlink().name
    until(
        lambda: served in [each["name"] for each in living.told(events.UPDATED)],
        f"no event tells of {served}",
    )
    assert ("PUT", f"/store/served/{served}/release.json", "") in since  # for other machines

    assert new.keys() <= set(living.table("database")["id"])
    hits = living.search(new)
    assert hits and not [key for key, ids in hits.items() if key not in ids]


def test_deleted_images_are_gone_and_unseen_classes_start_a_retrain(
    living: Living, updated: dict[str, Any]
) -> None:
    """Images that the models were trained on among them: training stands as it was."""
    gone = dict(updated["new"])
    trained_ids = living.table("train")["id"].to_list()[:3]
    gone |= {key: living.buckets.content("shop", f"photos/{key}") for key in trained_ids}
    updates, champion = living.runs("update"), living.champion()
    living.buckets.drop("shop", [f"photos/{key}" for key in gone])
    unseen = living.upload(living.unseen, 72)
    living.post(events.CHANGED)
    run = living.ended("update", updates)
    assert f"72 new, 0 changed, {len(gone)} gone" in run["state"]["message"]
    assert not living.ran(run) & TRAINING
    assert living.champion() > champion
    hits = living.search(gone)
    assert all(hits.values()) and not gone.keys() & {id for ids in hits.values() for id in ids}

    assert updated["retrained"] == []
    run = living.ended("retrain", [])
    assert run["created_by"]["type"] == "AUTOMATION" and run["state"]["name"] == "Released"
    (verdict,) = living.told(events.DRIFTED)
    assert "unseen_labels" in [each["name"] for each in verdict["exceeded"]]
    assert living.ran(run) >= TRAINING
    trained = set(living.table("train")["id"])
    assert trained & unseen.keys() and training_revision.read(living.root) == 3
    assert living.champion() > champion + 1
