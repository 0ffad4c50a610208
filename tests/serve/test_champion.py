"""The service follows the served release."""

import shutil

import pytest

from irgen.errors import ReleaseError
from irgen.serve import champion

from ..waiting import wait_until


@pytest.fixture
def project(tmp_path, make_project):
    """Two indexes; ``champion`` leads to the first."""
    for name, numbers in (("first", range(20)), ("second", range(20, 40))):
        make_project(tmp_path / name, numbers)
    (tmp_path / "champion").symlink_to(tmp_path / "first" / "data" / "index")
    return tmp_path


def point(project, name):
    (project / "new").symlink_to(project / name / "data" / "index")
    (project / "new").replace(project / "champion")


def ids(running):
    return {item["id"] for item in running.get("/v1/items").json()["items"]}


def test_a_new_champion_and_a_rollback_are_served_without_a_restart(project, run_service, png):
    runs = run_service(project / "first", lambda: project / "champion")
    running = next(runs)
    wait_until(lambda: running.get("/readyz").status_code == 200)
    first = ids(running)
    point(project, "second")
    wait_until(lambda: ids(running) != first)
    assert len(ids(running)) == 20 and not ids(running) & first
    point(project, "first")
    wait_until(lambda: ids(running) == first)
    next(runs, None)


def test_a_release_that_cannot_be_opened_leaves_the_old_one_serving(project, run_service, png):
    runs = run_service(project / "first", lambda: project / "champion")
    running = next(runs)
    wait_until(lambda: running.get("/readyz").status_code == 200)
    (project / "second" / "data" / "index" / "codebooks.npy").write_bytes(b"damaged")
    point(project, "second")
    wait_until(lambda: running.get("/v1/info").json()["problem"] is not None)
    assert "codebooks.npy" in running.get("/v1/info").json()["problem"]
    assert running.get("/readyz").status_code == 200
    assert len(ids(running)) == 20
    point(project, "first")
    wait_until(lambda: running.get("/v1/info").json()["problem"] is None)
    next(runs, None)


def test_an_index_that_was_deleted_goes_on_answering(project, run_service, png):
    runs = run_service(project / "first", lambda: project / "champion")
    running = next(runs)
    wait_until(lambda: running.get("/readyz").status_code == 200)
    shutil.rmtree(project / "first" / "data" / "index")
    files = [("images", ("a.png", png(3)))]
    answer = running.post("/v1/search/upload", files=files, params={"k": 2}).json()
    assert answer["results"][0]["hits"][0]["id"] == "dogs/03.png"
    next(runs, None)


def test_without_an_index_the_service_waits_and_says_why(tmp_path, run_service, make_project):
    def locate():
        if not (tmp_path / "data").exists():
            raise ReleaseError("there is no index yet: make run builds one")
        return tmp_path / "data" / "index"

    runs = run_service(tmp_path, locate)
    running = next(runs)
    wait_until(lambda: "make run" in running.get("/readyz").text)
    assert running.get("/healthz").status_code == 200
    answer = running.post("/v1/search", json={"queries": [{"id": "a"}]})
    assert answer.status_code == 503 and "make run" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "5"
    for path in ("/", "/catalogue", "/codes", "/state"):
        page = running.get(path)
        assert page.status_code == 503 and "make run" in page.text, path
    make_project(tmp_path)
    wait_until(lambda: running.get("/readyz").status_code == 200)
    next(runs, None)


def test_a_folder_without_an_index_is_named_with_the_remedy(tmp_path):
    follower = champion.Champion(lambda: tmp_path / "nothing", "cpu")
    assert not follower.look()
    assert follower.error == (
        f"there is no index at {tmp_path / 'nothing'}: make one first (dvc repro index)"
    )


def test_a_fault_while_it_looks_does_not_end_the_following(project, run_service, monkeypatch):
    runs = run_service(project / "first", lambda: project / "champion")
    running = next(runs)
    wait_until(lambda: running.get("/readyz").status_code == 200)
    with monkeypatch.context() as patched:
        patched.setattr(champion, "_open", lambda *_: {}["nothing"])
        point(project, "second")
        wait_until(lambda: running.get("/v1/info").json()["problem"] is not None)
    wait_until(lambda: "cats/20.png" in ids(running))
    next(runs, None)
