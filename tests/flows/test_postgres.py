"""Prefect on PostgreSQL, as a team runs it: deployments are scheduled and stages run."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .. import server_program
from .conftest import ROOT, PrefectServer, Toy, until

pytestmark = pytest.mark.slow

BUILD = "import sys; from flows.build import build; print(build('.', return_state=True).name)"
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL; skip if it is not installed."""
    path = shutil.which(name) or next(iter(shutil.which(name, path=str(p)) for p in INSTALLED), "")
    if not path:
        pytest.skip(f"PostgreSQL's {name} is not installed: apt-get install postgresql")
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a PostgreSQL server and yield the URL of an empty database."""
    initdb, server = program("initdb"), program("postgres")
    # It refuses to run as root, and that user may not look into root's temporary folders.
    folder = Path("/tmp") / f"irgen-postgres-{os.getpid()}"
    folder.mkdir(mode=0o700)
    user = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    os.chown(folder, user.pw_uid, user.pw_gid)
    ids = {"user": user.pw_uid, "group": user.pw_gid} if os.getuid() == 0 else {}
    port = server_program.find_free_port()
    command = [initdb, "--pgdata", str(folder / "data"), "--username", "irgen", "--auth", "trust"]
    subprocess.run(command, cwd=folder, check=True, timeout=120, capture_output=True, **ids)
    process = subprocess.Popen(
        [server, "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **ids,
    )

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers, "PostgreSQL did not start")
        yield f"postgresql+asyncpg://irgen@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Yield a Prefect server that uses this database."""
    started = PrefectServer(tmp_path_factory.mktemp("prefect"), database)
    try:
        started.start()
        yield started
    finally:
        started.kill()


def run(*command: str, root: Path, server: PrefectServer) -> str:
    """Run a command that reports to the server, and return its output."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=os.environ | server.settings | {"IRGEN_ROOT": str(root), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_deployed_is_scheduled(server: PrefectServer) -> None:
    prefect = ("-m", "prefect", "--no-prompt")
    run(*prefect, "work-pool", "create", "irgen", "--type", "process", root=ROOT, server=server)
    run(*prefect, "deploy", "--all", root=ROOT, server=server)
    deployed = server.ask("/deployments/filter", {})
    often = next(each["id"] for each in deployed if each["name"] == "update")
    wanted = {"flow_runs": {"deployment_id": {"any_": [often]}}, "limit": 1}
    until(lambda: server.ask("/flow_runs/filter", wanted), "no run was scheduled", server.told)
    assert not (server.folder / "prefect.db").exists()


def test_a_build_runs_every_stage_and_is_seen(server: PrefectServer, toy: Toy) -> None:
    assert run("-c", BUILD, root=toy.root, server=server).split()[-1] == "Built"
    assert toy.ran() == ["first", "last", "left", "right"]
    expected = dict.fromkeys(("first", "last", "left", "right"), "COMPLETED")

    def seen() -> bool:
        tasks = server.ask("/task_runs/filter", {})
        return {task["name"]: task["state"]["type"] for task in tasks} == expected

    until(seen, "not every stage was told of", server.told)


def test_a_limit_of_a_tag_is_kept_to(server: PrefectServer, toy: Toy) -> None:
    pipeline = yaml.safe_load((toy.root / "dvc.yaml").read_text())
    for name in ("left", "right"):  # which else run side by side
        pipeline["stages"][name]["meta"] = {"prefect": {"tags": ["one"], "timeout_seconds": 60}}
        pipeline["stages"][name]["cmd"] = f"sleep 1 && python work.py {name}"
    (toy.root / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    server.ask("/v2/concurrency_limits/", {"name": "tag:one", "limit": 1})
    assert run("-c", BUILD, root=toy.root, server=server).split()[-1] == "Built"
    ended = {"state": {"type": {"any_": ["COMPLETED"]}}}  # others have no start, and come first
    wanted = {"flow_runs": ended, "sort": "START_TIME_DESC", "limit": 1}
    latest = server.ask("/flow_runs/filter", wanted)[0]["id"]

    def times() -> list[tuple[str, str]]:
        tasks = server.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [latest]}}})
        two = [each for each in tasks if each["name"] in ("left", "right") and each["end_time"]]
        return sorted((each["start_time"], each["end_time"]) for each in two)

    until(lambda: len(times()) == 2, "not both were told of", server.told)
    first, second = times()
    assert first[1] <= second[0]
    assert server.ask("/v2/concurrency_limits/filter", {})[0]["active_slots"] == 0
