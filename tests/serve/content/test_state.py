"""What the page *State* says of the release, of what is new in it, and of changes by hand."""

import shutil
from dataclasses import replace

import polars as pl
import pytest

from irgen.index.index import Index
from irgen.releases import release, store
from irgen.releases.release import Release
from irgen.serve.content.state import FLOW_PAGES, Link, compare, list_links
from irgen.tracking.locations import store_key

from ..conftest import serve_writable
from ..pages.test_edit_page import add
from ..pages.test_page import show

BUILD = "5f0c3a52-3c5f-4a55-9d1f-0123456789ab"


def make_release(root, version: int, previous: int | None = None) -> Release:
    """Make a release of ``data/index`` and serve it."""
    releases = store.path_in(root)
    new = Release(version=version, bundle=f"{version:010d}", files={}, previous=previous)
    shutil.copytree(root / "data" / "index", releases / new.name)
    release.write(releases / new.name, new)
    champion = releases / store.CHAMPION
    champion.unlink(missing_ok=True)
    champion.symlink_to(new.name)
    return new


@pytest.fixture
def two_releases(tmp_path, make_project):
    """Return a project whose second release lacks an image, has a new one, and one with other
    content."""
    root = make_project(tmp_path)
    make_release(root, 1)
    with Index.open(root / "data" / "index", writable=True) as index:
        ids = index.view.all_ids()
        codes, vectors = index.view.snapshot.segments[0].codes, index.view.base.segment.embeddings
        index.remove(["cats/00.png"])
        for name, write in (("new.png", index.add_encoded), ("cats/04.png", index.upsert_encoded)):
            metadata = pl.DataFrame({"sha256": [name]})
            write(vectors[:1], [name], metadata, codes=codes[:1])
        assert len(ids) == 40
    return root, make_release(root, 2, previous=1)


def test_a_release_is_compared_with_the_one_before(two_releases):
    root, second = two_releases
    releases = store.path_in(root)
    before = store.find_release(releases, 1)
    difference = compare(releases / before.name, releases / second.name)
    assert (difference.added, difference.replaced, difference.removed) == (1, 1, 1)
    assert difference.samples == ["new.png", "cats/04.png"]


def test_the_page_shows_what_is_new_and_what_was_changed_by_hand(two_releases, run_service, png):
    root, _ = two_releases
    with serve_writable(run_service, root) as running:
        page = show(running, "/state").text
        assert "New since release 1" in page and "1 added, 1 replaced, 1 removed." in page
        assert 'title="new.png"' in page and "Changed by hand" not in page
        assert add(running, png(60), name="by-hand.png").status_code == 200
        page = show(running, "/state").text
        assert "Release 2" in page and "Changed by hand" in page
        assert "1 added, 0 replaced, 0 removed." in page and 'title="by-hand.png"' in page


def test_a_release_before_that_is_gone_is_named(two_releases, run_service):
    root, _ = two_releases
    shutil.rmtree(store.path_in(root) / Release(version=1, bundle=f"{1:010d}", files={}).name)
    with serve_writable(run_service, root) as running:
        assert "Release 1 was served before. It is not kept" in show(running, "/state").text


def test_a_release_leads_to_mlflow_and_to_its_flow_run(tmp_path, root, monkeypatch):
    shutil.copy(root / "params.yaml", tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv(FLOW_PAGES, raising=False)
    plain = Release(version=1, bundle="a", files={}, build=BUILD, registered="3")
    known = replace(plain, registry=store_key(tmp_path))
    text = "version 3 of the model irgen: irgen ui shows it"
    assert list_links(tmp_path, known) == {
        "MLflow": Link(text, None),
        "Flow run": Link(BUILD, None),
    }
    assert list_links(tmp_path, replace(plain, build="run-1")) == {}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:5000")
    monkeypatch.setenv(FLOW_PAGES, "http://127.0.0.1:4200/")
    links = list_links(tmp_path, replace(plain, registry=store_key(tmp_path)))
    assert links["MLflow"].url.endswith("/#/models/irgen/versions/3")
    assert "secret" not in links["MLflow"].url
    assert links["Flow run"].url == f"http://127.0.0.1:4200/runs/flow-run/{BUILD}"
