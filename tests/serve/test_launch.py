"""``irgen serve`` as people start it: addresses, several services, several processes."""

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from irgen.commands.serve import serve as serve_command
from irgen.errors import ServiceError
from irgen.serve import launch, running

HAS_IPV6 = Path("/proc/net/if_inet6").exists()


@pytest.fixture(scope="module")
def project(tmp_path_factory, make_project):
    return make_project(tmp_path_factory.mktemp("launched"))


@pytest.mark.parametrize("option", ["--batch", "--decoders", "--processes"])
def test_nothing_is_started_that_could_answer_no_search(tmp_path, option):
    done = CliRunner().invoke(serve_command, ["--root", str(tmp_path), "--port", "0", option, "0"])
    assert done.exit_code == 2 and "range" in done.output


def search(root, picture, *options):
    """Return what ``irgen search`` prints, and its imports."""
    command = [sys.executable, "-X", "importtime", "-m", "irgen", "search", picture, *options]
    done = subprocess.run(
        [*map(str, command), "--root", str(root)], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.slow
def test_a_search_asks_the_service_that_still_runs_and_needs_no_models(project, serve, png):
    (project / "a.png").write_bytes(png(3))
    first, second = serve(project), serve(project)
    for service in (first, second):
        assert service.get("/readyz").status_code == 200
    assert running.find(project, project / "data" / "index") in (first.url, second.url)
    first.stop()
    assert running.find(project, project / "data" / "index") == second.url
    text, imports = search(project, "a.png", "-k", "2")
    assert "dogs/03.png" in text
    assert "httpx" in imports and not imports & {"torch", "polars", "numpy", "timm", "fastapi"}
    second.process.kill()
    second.process.wait()
    assert running.find(project, project / "data" / "index") is None
    assert "dogs/03.png" in search(project, "a.png", "-k", "2")[0]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
def test_a_service_answers_at_ipv6(project, serve, png):
    service = serve(project, "--host", "::1")
    assert service.url.startswith("http://[::1]:")
    assert service.get("/readyz").status_code == 200
    assert service.get("/readyz", headers={"Host": "elsewhere.example"}).status_code == 400


def test_an_address_where_nobody_can_listen_is_refused():
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(ServiceError, match="is taken: choose another"):
        launch.listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ServiceError, match=r"--host 192\.0\.2\.1 --port 8080: nobody can"):
        launch.listen("192.0.2.1", 8080)
    with pytest.raises(ServiceError, match="0 to 65535"):
        launch.listen("127.0.0.1", 70_000)


@pytest.mark.slow
def test_what_is_ready_has_its_decoders_running(project, serve):
    service = serve(project, "--decoders", "3")
    assert service.get("/readyz").status_code == 200
    children = psutil.Process(service.process.pid).children(recursive=True)
    assert sum("forkserver" in " ".join(child.cmdline()) for child in children) >= 4
