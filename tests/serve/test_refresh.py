"""The project's own index follows what is released, while the service answers."""

import shutil

import pytest

from irgen.releases import own_index
from irgen.serve.refresh import Refresh

from ..waiting import wait_until


@pytest.fixture
def project(tmp_path, make_project):
    """Return an index of twenty images, one of them removed by hand, and another index."""
    make_project(tmp_path / "next", range(10, 40))
    root = make_project(tmp_path / "project", range(20))
    with own_index.open_writer(root) as index:
        index.remove(["dogs/11.png"])
    return root


def make_again(project):
    """Replace the pipeline's index, as its next run does."""
    shutil.rmtree(project / "data" / "index")
    shutil.copytree(project.parent / "next" / "data" / "index", project / "data" / "index")


@pytest.fixture
def running(project, run_service):
    runs = run_service(
        project,
        lambda: own_index.default_folder(project),
        refresh=Refresh(lambda: own_index.refresh(project), seconds=0.1, failure="no"),
    )
    running = next(runs)
    wait_until(lambda: running.get("/readyz").status_code == 200)
    yield running
    next(runs, None)


def ids(running):
    return {item["id"] for item in running.get("/v1/items").json()["items"]}


def test_edits_are_kept_when_another_index_is_released(project, running):
    assert len(ids(running)) == 19
    make_again(project)
    wait_until(lambda: len(ids(running)) == 29)
    assert "cats/36.png" in ids(running) and "dogs/11.png" not in ids(running)
    assert running.get("/v1/info").json()["problem"] is None


def test_an_index_that_cannot_follow_goes_on_and_says_why(project, running):
    (base,) = (project.parent / "next" / "data" / "index" / "base").glob("*/codes.npy")
    base.write_bytes(b"damaged")
    make_again(project)
    wait_until(lambda: running.get("/v1/info").json()["problem"] is not None)
    assert "codes.npy" in running.get("/v1/info").json()["problem"]
    assert "codes.npy" in running.get("/state").text
    assert len(ids(running)) == 19
