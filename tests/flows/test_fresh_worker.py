"""A new machine gets every result from DVC's remote, by the commands of the docs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.build import build

from ..bucket_server import BucketServer
from .conftest import ROOT, PrefectServer, Toy

PAGE = (ROOT / "docs" / "how-to" / "run-as-a-service.md").read_text()
WHO = ("AUTHOR", "COMMITTER")
SOMEBODY = {f"GIT_{who}_{what}": "t@t" for who in WHO for what in ("NAME", "EMAIL")}


def blocks() -> list[str]:
    """Return the scripts of the page's section on the remote and the fresh worker."""
    part = PAGE.split("## A DVC remote, and a fresh worker")[1]
    return re.findall(r"```bash\n(.*?)```", part, flags=re.DOTALL)


def typed(script: str, folder: Path) -> str:
    """Run a script and return its output; fail if one of its commands fails."""
    empty = folder.parent / "aws-config"
    empty.touch()  # DVC opens what it is named, and does not take the null device
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxc", script],
        cwd=folder,
        env=os.environ | SOMEBODY | {"PATH": path, "AWS_CONFIG_FILE": str(empty)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_fresh_worker_restores_everything_and_runs_nothing(
    toy: Toy, buckets: BucketServer, tmp_path: Path
) -> None:
    buckets.fill("bucket", {})
    once, there = (
        text.replace("http://127.0.0.1:9000", buckets.uri).replace("irgen releases pull\n", "")
        for text in blocks()
    )
    typed("dvc repro --quiet", toy.root)
    typed(once, toy.root)
    clone = tmp_path / "clone"
    typed(f"git clone --quiet {toy.root} {clone}", tmp_path)
    typed(there, clone)
    assert not (clone / ".ran").exists()
    for name in ("first", "left", "right", "last"):
        assert (clone / "data" / name).read_text() == (toy.root / "data" / name).read_text()


@pytest.mark.slow
def test_a_build_hands_its_results_to_the_remote(
    toy: Toy,
    buckets: BucketServer,
    prefect_server: PrefectServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buckets.fill("bucket", {})
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))  # as ``typed`` makes it
    once = blocks()[0].replace("http://127.0.0.1:9000", buckets.uri)
    typed("\n".join(line for line in once.splitlines() if "dvc remote" in line), toy.root)
    buckets.fault = lambda environ, answer: answer("403 Forbidden")
    assert build(str(toy.root), return_state=True).name == "Built"
    refused = buckets.count("PUT")
    assert refused
    buckets.fault = None
    (toy.root / "words.txt").write_text("other words")
    assert build(str(toy.root), return_state=True).name == "Built"
    assert buckets.count("PUT") - refused >= 8  # four results of two builds
    assert buckets.count("PUT", "/dvc/runs/") >= 8
