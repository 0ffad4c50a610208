"""Several processes behind one port."""

import os
import re
import signal
from contextlib import suppress

import httpx
import psutil
import pytest

from ..waiting import wait_until

pytestmark = pytest.mark.slow
SEARCH = {"queries": [{"id": "dogs/01.png"}], "k": 3}


@pytest.fixture(scope="module")
def project(tmp_path_factory, make_project):
    return make_project(tmp_path_factory.mktemp("processes"))


def find_processes(service):
    """Return the processes of a service that answer."""
    answering = []
    for child in psutil.Process(service.process.pid).children():
        with suppress(psutil.Error):  # it has ended
            if "spawn_main" in " ".join(child.cmdline()):
                answering.append(child)
    return answering


def read_figure(service, name):
    text = service.get("/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}[^ ]* (.*)$", text, re.MULTILINE))


def is_answered(service):
    try:
        return service.post("/v1/search", json=SEARCH).status_code == 200
    except httpx.TransportError:
        return False


def test_processes_share_port_figures_and_work_and_one_that_dies_is_replaced(project, serve):
    service = serve(project, "--processes", "2")
    assert service.get("/readyz").status_code == 200
    wait_until(lambda: read_figure(service, "irgen_swaps_total") == 2)
    for _ in range(10):
        assert is_answered(service)
    wait_until(lambda: read_figure(service, "irgen_queries_total") == 10)
    assert read_figure(service, "irgen_index_images") == 40
    assert read_figure(service, "irgen_queue_queries") == 0
    first, second = find_processes(service)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: is_answered(service))
    wait_until(lambda: len(find_processes(service)) == 2 and first not in find_processes(service))
    wait_until(lambda: read_figure(service, "irgen_swaps_total") == 3)
    assert read_figure(service, "irgen_index_images") == 40
    assert service.stop() == 0
    assert not second.is_running()


def test_processes_end_with_the_one_that_watches_over_them(project, serve):
    service = serve(project, "--processes", "2")
    assert service.get("/readyz").status_code == 200
    children = psutil.Process(service.process.pid).children(recursive=True)
    service.process.kill()
    wait_until(lambda: not any(child.is_running() for child in children))
