"""The project's own pipeline, on few images and in few steps, from the first build to an update
that publishes new images, with a real Prefect server."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows import graph
from flows.build import build
from flows.update import update
from irgen.catalog.sources.arrays import list_digits

from .conftest import ROOT, PrefectServer, until

pytestmark = [pytest.mark.slow, pytest.mark.scenario]

DAY = 86_400 * 10**9  # nanoseconds
TRAINING = {"pairs", "tokenizer", "retriever"}
SMALL = {
    "download": {"source": "images"},
    "tokenizer": {"levels": 2, "codebook": 8, "width": 16, "steps": 10},
    "retriever": {"width": 16, "layers": 1, "heads": 2, "steps": 10},
    "gate": {"margin": 1.0, "minimum": 0.0},
    "compute": {"threads": 1, "device": "cpu"},
}


@pytest.fixture
def living(
    tmp_path: Path,
    quiet_dvc: dict[str, str],
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Return a copy of the project with 200 images in a folder; ten more are held back."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = tmp_path / "project"
    root.mkdir()
    shutil.copytree(ROOT / "irgen", root / "irgen", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "training.yaml", ".gitignore", ".dvcignore"):
        shutil.copyfile(ROOT / name, root / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in SMALL.items():
        params[section] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    for number, entry in enumerate(list_digits().entries):
        if number < 210:
            path = root / ("images" if number < 200 else "later") / entry.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.read())
    (root / "mlruns").mkdir()
    shutil.copyfile(empty_store, root / "mlruns" / "mlflow.db")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True, timeout=60)
    return root


def last(server: PrefectServer, key: str) -> str:
    """Return the content of the latest artifact of a key."""
    asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    return server.ask("/artifacts/filter", asked)[0]["data"]


def ran(server: PrefectServer) -> set[str]:
    return {row["stage"] for row in json.loads(last(server, "stages")) if row["outcome"] == "ran"}


def test_new_images_are_published_without_training(
    prefect_server: PrefectServer, living: Path
) -> None:
    state = build(str(living), return_state=True)
    assert state.name == "Released", state.message
    everything = set(graph.read(living))
    assert ran(prefect_server) == everything
    first = (living / "releases" / "champion").readlink()

    assert update(str(living), return_state=True).name == "Unchanged"

    for path in (living / "later").rglob("*.png"):
        target = living / "images" / path.relative_to(living / "later")
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    state = update(str(living), return_state=True)
    assert state.name == "Released", state.message
    assert "10 new, 0 changed, 0 gone; 210 images at revision 2" in state.message
    assert ran(prefect_server) == everything - TRAINING
    assert (living / "releases" / "champion").readlink() != first
    assert "| metric | previous build | now | change |" in last(prefect_server, "metrics")
    until(lambda: "10 new" in last(prefect_server, "database"), "no page tells of it")


BUILD = "from flows.build import build; print(build('.', return_state=True).name)"


def killed(root: Path, hit: set[str], ended: set[str]) -> str | None:
    """Kill a build and its processes in the first stage that is not in ``hit``, and return this
    stage; None if the build came to its end. ``ended``: the stages that need not run again."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"(\w+): ran in", line):
            ended.add(match[1])
        if match := re.search(r"Running stage '(\w+)'", line):
            assert match[1] not in ended - {"download"}, f"{match[1]} was done already"
            if match[1] not in hit:
                time.sleep(0.5)  # into the work
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return match[1]
    assert process.wait() == 0
    return None


def test_a_build_killed_in_each_of_its_stages_is_one_release(
    prefect_server: PrefectServer, living: Path
) -> None:
    """Expect that a finished stage is not run again, except the one that reads the source."""
    hit: set[str] = set()
    ended: set[str] = set()
    while stage := killed(living, hit, ended):
        hit.add(stage)
    assert hit == set(graph.read(living))
    assert [path.name[:4] for path in (living / "releases").glob("0*")] == ["0001"]
    assert update(str(living), return_state=True).name == "Unchanged"


def test_a_full_disk_and_a_clock_that_is_put_back_lose_nothing(
    prefect_server: PrefectServer, living: Path
) -> None:
    """A real disk of some kilobytes where encodings are kept; then a clock put back by a day, which
    leaves all that was written in its future."""
    encodings = living / ".cache" / "encodings"
    encodings.mkdir(parents=True)
    small = ["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(encodings)]
    if subprocess.run(small, capture_output=True).returncode == 0:  # who may not mount, goes on
        try:
            state = build(str(living), return_state=True)
        finally:
            subprocess.run(["umount", str(encodings)], check=True)
        assert state.is_failed() and "no space left on the disk" in state.message, state.message
        assert not (living / "releases").exists()
    assert build(str(living), return_state=True).name == "Released"

    for path in living.rglob("*"):
        if not path.is_symlink():
            about = path.stat()
            os.utime(path, ns=(about.st_atime_ns + DAY, about.st_mtime_ns + DAY))
    path = next((living / "later").rglob("*.png"))
    shutil.copyfile(path, living / "images" / path.parent.name / path.name)
    state = update(str(living), return_state=True)
    assert state.name == "Released" and "1 new, 0 changed, 0 gone; 201" in state.message
    assert not ran(prefect_server) & TRAINING
