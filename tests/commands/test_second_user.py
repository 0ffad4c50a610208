"""A user who may only read a project of somebody else's: searches go on, changes are refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DROP = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
SCRIPT = """
import sys
from irgen.commands import cli
for line in sys.stdin.read().splitlines():
    print(f"= {line}: {cli.main(line.split())}", flush=True)
    print("=", file=sys.stderr, flush=True)
"""
READS = ["search photos/003.png -k 2", "info --verify", "releases"]
PRIVATE = ["changes.sqlite", "index.json", "models/retriever.safetensors"]
REFUSED = {
    **{
        f"info --index private{number}": f"{file} cannot be read (Permission denied): run as the "
        "user who owns it"
        for number, file in enumerate(PRIVATE)
    },
    "results": "nothing is evaluated yet",
    "add photos/100.png": "Permission denied (index/lock)",
    "remove dogs/01.png": "Permission denied (index/lock)",
    "compact": "Permission denied (index/lock)",
    "rollback": "run as the user who owns",
    "release": "run as the user who owns",
}


@pytest.fixture
def foreign(project: Path, root: Path) -> Path:
    """Give the project, with an index of its own, to another user."""
    shutil.copytree(project / "data" / "index", project / "index")
    shutil.copyfile(root / "params.yaml", project / "params.yaml")
    for number, file in enumerate(PRIVATE):
        shutil.copytree(project / "index", project / f"private{number}")
        (project / f"private{number}" / file).chmod(0o600)
    (project / "releases").mkdir()
    (project / "index" / "lock").touch()
    (project / "releases" / ".lock").touch()
    try:
        for path in (project, *project.rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)
    except PermissionError:
        pytest.skip("only root may give files away")
    if subprocess.run([*DROP, "true"], capture_output=True).returncode:
        pytest.skip("privileges cannot be dropped here")
    project.chmod(0o755)
    return project


def run_all(lines: list[str]) -> list[tuple[str, str]]:
    """Run commands as root without its privileges, a user like any other; return the status line
    and stderr of each."""
    outcome = subprocess.run(
        [*DROP, sys.executable, "-c", SCRIPT],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert outcome.returncode == 0, outcome.stderr
    states = [line for line in outcome.stdout.splitlines() if line.startswith("= ")]
    return list(zip(states, outcome.stderr.split("=\n"), strict=False))


def test_who_may_only_read_can_search_and_is_told_why_nothing_else(foreign: Path) -> None:
    results = run_all([*READS, *REFUSED])
    for line, (state, errors) in zip(READS, results, strict=False):
        assert (state, errors) == (f"= {line}: 0", "")
    for (line, reason), (state, errors) in zip(REFUSED.items(), results[len(READS) :], strict=True):
        assert state == f"= {line}: 2" and reason in errors and errors.count("\n") == 1, errors
