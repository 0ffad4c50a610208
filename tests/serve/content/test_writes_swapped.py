"""Changes while the index is brought up to date with another release."""

import shutil
from dataclasses import replace

from irgen.index.index import Index
from irgen.releases import own_index

from ...small_index import CALIBRATION
from ..conftest import serve_writable, wait_until
from . import editors
from .editors import Editor


def test_what_is_acknowledged_while_the_release_is_swapped_is_there_afterwards(
    tmp_path, make_project, run_service, png
):
    """The other index has other models, too: changes that were prepared for the first one are not
    made in it as they are."""
    root = make_project(tmp_path / "first", range(30))
    calibration = replace(CALIBRATION, queries=10)
    second = make_project(tmp_path / "second", range(10, 40), calibration)
    people = [Editor(f"editor{number}", png) for number in range(4)]
    with serve_writable(run_service, root) as running:
        threads, stop = editors.start(people, running.url)
        wait_until(lambda: all(editor.done for editor in people))
        first = running.service.champion.served
        shutil.rmtree(root / "data" / "index")
        (second / "data" / "index").rename(root / "data" / "index")
        assert own_index.needs_refresh(root)
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
