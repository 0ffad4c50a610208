"""Changes while the index is brought up to date with another release."""

import shutil
from dataclasses import replace

import httpx

from irgen.index.index import Index
from irgen.releases import own_index
from irgen.serve import service

from ...small_index import CALIBRATION
from ...waiting import wait_until
from ..conftest import serve_writable
from . import editors
from .editors import Editor


def make_two(tmp_path, make_project):
    """Return two projects whose indexes have other models and, in part, other images."""
    first = make_project(tmp_path / "first", range(30))
    calibration = replace(CALIBRATION, queries=10)
    return first, make_project(tmp_path / "second", range(10, 40), calibration)


def replace_source(root, other):
    shutil.rmtree(root / "data" / "index")
    (other / "data" / "index").rename(root / "data" / "index")
    assert own_index.needs_refresh(root)


def test_a_change_is_seen_at_once_also_if_the_index_was_replaced_just_before(
    tmp_path, make_project, run_service, monkeypatch
):
    root, second = make_two(tmp_path, make_project)
    own_index.open_writer(root).close()
    monkeypatch.setattr(service, "LOOK_SECONDS", 600)
    with serve_writable(run_service, root) as running:
        ids = [item["id"] for item in running.get("/v1/items").json()["items"]]
        name = next(name for name in ids if name.endswith("/20.png"))
        replace_source(root, second)
        own_index.refresh(root)
        httpx.delete(f"{running.url}/v1/items", params={"id": name}, timeout=60).raise_for_status()
        assert running.get("/v1/items", params={"filter": f"id = '{name}'"}).json()["total"] == 0


def test_what_is_acknowledged_while_the_release_is_swapped_is_there_afterwards(
    tmp_path, make_project, run_service, png
):
    """Use other models in the second index: changes that were prepared for the first index do not
    fit it."""
    root, second = make_two(tmp_path, make_project)
    people = [Editor(f"editor{number}", png) for number in range(4)]
    with serve_writable(run_service, root) as running:
        threads, stop = editors.start(people, running.url)
        wait_until(lambda: all(editor.done for editor in people))
        first = running.service.champion.served
        replace_source(root, second)
        own_index.refresh(root)
        wait_until(lambda: running.service.champion.served is not first)
        done = [editor.done for editor in people]
        wait_until(lambda: all(e.done > before for e, before in zip(people, done, strict=True)))
        stop.set()
        for thread in threads:
            thread.join(60)
        served = running.service.champion.served
        assert served.index.calibration.queries == 10
    with Index.open(own_index.path_in(root)) as index:
        table = index.view.take(index.view.snapshot.alive_rows().numpy())
    prices = dict(zip(table["id"], table["price"], strict=True))
    for editor in people:
        assert editor.pending is None
        editor.settle(prices)
    others = [name for name in prices if not name.startswith("editor")]
    assert sorted(name.split("/")[1] for name in others) == [f"{n}.png" for n in range(10, 40)]
