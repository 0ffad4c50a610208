"""The files of deploy/cluster have fields that Ray and KubeRay know; all pods share the project."""

import json
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, validate

from irgen.commands.token import FILE
from irgen.serve.api.routes import watch

from .command_lines import check_command

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "deploy" / "cluster"


def fields(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": [*required],
        "additionalProperties": False,
    }


def several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITIES = fields({"cpu": TEXT, "memory": TEXT}, {"nvidia.com/gpu": TEXT})
NAMED = fields({"name": TEXT})
# Of Kubernetes' core/v1: PodSpec, Container and Volume, the fields used here.
PROBE = fields(
    {"httpGet": fields({"path": TEXT, "port": COUNT})},
    {"periodSeconds": COUNT, "failureThreshold": COUNT},
)
MOUNT = fields({"name": TEXT, "mountPath": TEXT}, {"subPath": TEXT})
CONTAINER = fields(
    {"name": TEXT, "image": TEXT, "volumeMounts": several(MOUNT)},
    {
        "command": several(TEXT),
        "ports": several(fields({"containerPort": COUNT})),
        "livenessProbe": PROBE,
        "readinessProbe": PROBE,
        "env": several(fields({"name": TEXT, "value": TEXT})),
        "envFrom": several(fields({"secretRef": NAMED})),
        "resources": fields({"requests": QUANTITIES, "limits": QUANTITIES}),
    },
)
VOLUME = fields(
    {"name": TEXT},
    {
        "persistentVolumeClaim": fields({"claimName": TEXT}),
        "emptyDir": fields({"sizeLimit": TEXT}, {"medium": {"enum": ["", "Memory"]}}),
        "secret": fields({"secretName": TEXT}),
    },
)
LABELS = fields({"labels": TEXTS})
POD = fields({"containers": several(CONTAINER), "volumes": several(VOLUME)})
TEMPLATE = fields({"spec": POD}, {"metadata": LABELS})
# Of Kubernetes' apps/v1: Deployment, the fields used here.
DEPLOYMENT = fields(
    {
        "apiVersion": {"const": "apps/v1"},
        "kind": {"const": "Deployment"},
        "metadata": NAMED,
        "spec": fields(
            {"replicas": COUNT, "selector": fields({"matchLabels": TEXTS}), "template": TEMPLATE}
        ),
    }
)
# Of ray.io/v1 in github.com/ray-project/kuberay, ray-operator/apis/ray/v1: RayJobSpec
# (rayjob_types.go) and RayClusterSpec, HeadGroupSpec, WorkerGroupSpec (raycluster_types.go).
CLUSTER_SPEC = fields(
    {
        "rayVersion": TEXT,
        "headGroupSpec": fields({"rayStartParams": TEXTS, "template": TEMPLATE}),
        "workerGroupSpecs": several(
            fields(
                {"groupName": TEXT, "minReplicas": COUNT, "maxReplicas": COUNT}
                | {"rayStartParams": TEXTS, "template": TEMPLATE},
                {"replicas": COUNT},
            )
        ),
    }
)
RAY_JOB = fields(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": NAMED,
        "spec": fields(
            {"entrypoint": TEXT, "rayClusterSpec": CLUSTER_SPEC},
            {
                "backoffLimit": COUNT,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
            },
        ),
    }
)


def documents(name: str) -> dict[str, dict[str, Any]]:
    """Return the objects in a file of Kubernetes, by their kind."""
    return {item["kind"]: item for item in yaml.safe_load_all((CLUSTER / name).read_text())}


def test_the_schema_of_a_ray_job_is_one_and_refuses_a_misspelt_field() -> None:
    Draft202012Validator.check_schema(RAY_JOB)
    job = documents("rayjob.yaml")["RayJob"]
    job["spec"]["rayClusterSpec"]["workerGroupSpec"] = []
    assert not Draft202012Validator(RAY_JOB).is_valid(job)


def test_the_ray_job_has_only_fields_that_kuberay_knows() -> None:
    validate(documents("rayjob.yaml")["RayJob"], RAY_JOB)


def test_all_pods_of_the_ray_job_see_the_same_project() -> None:
    objects = documents("rayjob.yaml")
    claim, spec = objects["PersistentVolumeClaim"], objects["RayJob"]["spec"]["rayClusterSpec"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        source = mounts["/project"]["persistentVolumeClaim"]["claimName"]
        assert source == claim["metadata"]["name"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_ray_job_runs_what_exists() -> None:
    shell, option, line = shlex.split(documents("rayjob.yaml")["RayJob"]["spec"]["entrypoint"])
    assert (shell, option) == ("bash", "-c")
    for command in line.split(" && "):
        check_command(shlex.split(command))


def test_the_cluster_of_machines_fits_the_schema_of_the_installed_ray() -> None:
    ray = pytest.importorskip("ray")
    config = yaml.safe_load((CLUSTER / "machines.yaml").read_text())
    schema = json.loads((files("ray") / "autoscaler" / "ray-schema.json").read_text())
    validate(config, schema)
    provider = config["provider"]
    assert provider["type"] == "local"
    assert config["max_workers"] == len(provider["worker_ips"])
    assert provider["head_ip"] not in provider["worker_ips"]
    job = documents("rayjob.yaml")["RayJob"]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__


def test_the_replicas_start_what_exists_and_are_asked_where_they_answer() -> None:
    objects = documents("replicas.yaml")
    validate(objects["Deployment"], DEPLOYMENT)
    spec, service = objects["Deployment"]["spec"], objects["Service"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert labels == spec["selector"]["matchLabels"] == service["selector"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    check_command(container["command"])
    (port,) = (port["containerPort"] for port in container["ports"])
    assert str(port) in container["command"]
    assert [item["targetPort"] for item in service["ports"]] == [port]
    routes = {route.path for route in watch.routes}
    for probe in (container["livenessProbe"], container["readinessProbe"]):
        assert probe["httpGet"]["port"] == port and probe["httpGet"]["path"] in routes
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert volumes == {mount["name"] for mount in container["volumeMounts"]}
    assert f"/replica/{FILE}" in [mount["mountPath"] for mount in container["volumeMounts"]]
