"""Images are added, replaced and removed over HTTP."""

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from irgen.catalog.uploads import read_upload
from irgen.client import Client
from irgen.index.index import Index
from irgen.releases import own_index
from irgen.serve.access.tokens import Tokens, create_token
from irgen.serve.api import schema
from irgen.serve.app import create_app

from ... import small_disk
from ..conftest import Running, serve_writable, wait_until
from . import editors
from .editors import Editor


def add(running: Running, *named_files, items=None, upsert=False) -> httpx.Response:
    """Add image files, given as pairs of a name and bytes."""
    files = [("images", named_file) for named_file in named_files]
    data = {} if items is None else {"items": json.dumps(items)}
    return running.post("/v1/items", files=files, data=data, params={"upsert": upsert})


def remove(running: Running, *ids: str) -> httpx.Response:
    return httpx.delete(running.url + "/v1/items", params={"id": ids}, timeout=60)


def find_best(running: Running, content: bytes) -> str | None:
    """Return the id of the first hit for an image file, None if there is no hit."""
    files = {"images": ("a.png", content)}
    hits = running.post("/v1/search/upload", files=files).json()["results"][0]["hits"]
    return hits[0]["id"] if hits else None


def list_ids(root) -> set[str]:
    with Index.open(own_index.default_folder(root)) as index:
        return set(index.view.all_ids())


def test_what_is_added_is_found_then_replaced_then_removed_then_gone(writable, png):
    new = png(100)
    assert find_best(writable, new) != "new.png"
    answer = add(writable, ("new.png", new), items=[{"metadata": {"label": "cats", "price": 3}}])
    assert answer.json() == {"ids": ["new.png"], "replaced": 0, "images": 41}
    assert find_best(writable, new) == "new.png"
    item = writable.get("/v1/items", params={"id": "new.png"}).json()["items"][0]
    assert item["metadata"]["label"] == "cats" and item["metadata"]["price"] == 3.0
    assert item["metadata"]["path"] == "new.png"
    assert read_upload(writable.root, item["metadata"]["sha256"]) == new
    assert writable.get("/v1/picture", params={"id": "new.png"}).content == new
    answer = add(writable, ("new.png", png(101)), upsert=True)
    assert answer.json() == {"ids": ["new.png"], "replaced": 1, "images": 41}
    assert find_best(writable, png(101)) == "new.png"
    item = writable.get("/v1/items", params={"id": "new.png"}).json()["items"][0]
    assert item["metadata"]["label"] is None
    assert remove(writable, "new.png").json() == {"ids": ["new.png"], "replaced": 0, "images": 40}
    assert find_best(writable, png(101)) != "new.png"
    assert writable.get("/v1/items", params={"id": "new.png"}).status_code == 404


def test_as_many_images_as_a_request_may_name_are_removed_together(writable):
    answer = remove(writable, *map(str, range(schema.MOST_REMOVED)))
    assert answer.status_code == 404 and "nothing was removed" in answer.json()["detail"]


def test_an_index_that_was_emptied_can_be_filled_again_at_once(writable, png):
    assert remove(writable, *list_ids(writable.root)).json()["images"] == 0
    assert find_best(writable, png(1)) is None
    started = time.monotonic()
    assert add(writable, ("new.png", png(100))).json()["images"] == 1
    assert time.monotonic() - started < 20
    assert find_best(writable, png(100)) == "new.png"


def test_the_first_change_makes_the_projects_own_copy_which_is_served(writable, png):
    before = (writable.root / "data" / "index" / "index.json").read_bytes()
    assert writable.get("/v1/info").json()["index"]["images"] == 40
    models = writable.service.champion.served.index.models
    assert add(writable, ("new.png", png(100))).status_code == 200
    served = writable.service.champion.served
    assert served.state[0] == str((writable.root / "index").resolve())
    assert served.index.models is models, "models are not loaded twice"
    assert (writable.root / "data" / "index" / "index.json").read_bytes() == before
    assert writable.get("/v1/info").json()["index"]["images"] == 41


@pytest.mark.parametrize(
    ("names", "items", "status", "reason"),
    [
        (["dogs/01.png"], None, 409, "in the index already: 'dogs/01.png'"),
        (["a.png", "a.png"], None, 400, "given twice: 'a.png'"),
        (["a.png"], [], 400, "items has 0 entries for 1 images"),
        (["a.png"], [{"metadata": {"prize": 3}}], 400, "did you mean 'price'"),
        (["a.png"], [{"metadata": {"price": "cheap"}}], 400, "holds numbers, and not 'cheap'"),
        (["a.png"], [{"metadata": {"sha256": "0"}}], 400, "'sha256' is filled in"),
        (["a.png"], [{"idd": "a"}], 422, "idd"),
        (["a.png"], [{"id": ""}], 422, "id"),
        (["a.png"], "nothing", 422, "items"),
        ([f"{n}.png" for n in range(33)], None, 400, "33 images: at most 32"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_problem_document_and_changes_nothing(
    writable, png, names, items, status, reason
):
    files = [(name, png(200 + number)) for number, name in enumerate(names)]
    answer = add(writable, *files, items=items)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert reason in answer.json()["detail"]
    assert len(list_ids(writable.root)) == 40
    missing = remove(writable, "dogs/01.png", "nothing")
    assert missing.status_code == 404 and "'nothing'" in missing.json()["detail"]
    assert len(list_ids(writable.root)) == 40


def test_one_bad_image_fails_alone_and_with_it_the_images_of_its_request(writable, png):
    bad = ("bad.png", b"no image")
    with ThreadPoolExecutor(8) as pool:
        good = [pool.submit(add, writable, (f"{n}.png", png(300 + n))) for n in range(4)]
        failed = pool.submit(add, writable, ("beside.png", png(310)), bad)
        taken = pool.submit(add, writable, ("dogs/01.png", png(311)))
    assert [future.result().status_code for future in good] == [200] * 4
    assert failed.result().status_code == 400
    assert "bad.png: " in failed.result().json()["detail"]
    assert taken.result().status_code == 409
    ids = list_ids(writable.root)
    assert {f"{n}.png" for n in range(4)} <= ids and not {"beside.png", "bad.png"} & ids


def test_32_writers_at_once_are_all_answered_and_all_that_they_wrote_is_there(writable, png):
    def write(number: int) -> None:
        with Client(writable.url) as client:
            for turn in range(3):
                client.add([(f"{number}-{turn}.png", png(1000 + 10 * number + turn))])
                if turn:
                    client.remove([f"{number}-{turn - 1}.png"])

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(write, range(32)))
    assert {name for name in list_ids(writable.root) if "-" in name} == {
        f"{number}-2.png" for number in range(32)
    }
    text = writable.get("/metrics").text
    assert 'irgen_writes_total{action="add"} 96.0' in text
    assert 'irgen_writes_total{action="remove"} 64.0' in text


def test_while_another_writer_has_the_index_a_change_waits_then_is_refused(
    tmp_path, make_project, run_service, png
):
    root = make_project(tmp_path)
    own_index.make_copy(root)
    with serve_writable(run_service, root, seconds=2) as running:
        with Index.open(root / "index", writable=True):
            refused = add(running, ("new.png", png(100)))
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert f"process {os.getpid()} changes the index" in refused.json()["detail"]
            assert remove(running, "dogs/01.png").status_code == 503
            assert len(list_ids(root)) == 40
        assert add(running, ("new.png", png(100))).status_code == 200
        with Index.open(root / "index", writable=True, wait=30) as index:  # after the turn
            index.remove(["new.png"])


def test_another_program_gets_its_turn_although_clients_go_on(writable, png):
    people = [Editor(f"editor{number}", png) for number in range(3)]
    threads, stop = editors.start(people, writable.url)
    wait_until(lambda: all(editor.done for editor in people))
    for number in range(4):
        with own_index.open_writer(writable.root, wait=60) as index:
            index.add([png(500 + number)], [f"by hand {number}"])
    done = [editor.done for editor in people]
    wait_until(lambda: all(e.done > before for e, before in zip(people, done, strict=True)))
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not any(editor.refused for editor in people)
    ids = list_ids(writable.root)
    assert {f"by hand {number}" for number in range(4)} <= ids
    assert ids >= {name for editor in people for name in editor.alive}


def test_what_was_added_is_served_after_a_restart(tmp_path, make_project, run_service, png):
    root = make_project(tmp_path)
    for number in range(2):
        with serve_writable(run_service, root) as running:
            assert running.get("/v1/info").json()["index"]["images"] == 40 + number
            assert add(running, (f"{number}.png", png(100 + number))).status_code == 200
    Index.open(root / "index", writable=True).close()  # the lock is free
    assert {"0.png", "1.png"} <= list_ids(root)


def ask_with_tokens(running: Running, tokens: Tokens, method: str, token: str, **request):
    """Ask an application of its own, which needs tokens, around the service that runs already."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(running.service, tokens=tokens))
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, "/v1/items", headers=headers, **request)

    return asyncio.run(send())


def test_a_token_that_may_read_cannot_change_the_index(running, png, tmp_path):
    file = tmp_path / "tokens.json"
    reader, writer = create_token(file, "shop"), create_token(file, "editor", "write")
    accepted = Tokens(file)
    asked = {"DELETE": {"params": {"id": "nothing"}}, "POST": {"files": {"images": png(1)}}}
    for method, request in asked.items():
        refused = ask_with_tokens(running, accepted, method, reader, **request)
        assert refused.status_code == 403 and "--write" in refused.json()["detail"]
        assert ask_with_tokens(running, accepted, method, "wrong", **request).status_code == 401
        only_reads = ask_with_tokens(running, accepted, method, writer, **request)
        assert only_reads.status_code == 403 and "--read-only" in only_reads.json()["detail"]
    create_token(file, "shop", "write")  # takes effect at once; the earlier one ends
    assert ask_with_tokens(running, accepted, "DELETE", reader).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://evil"}],
)
def test_a_page_of_another_site_cannot_change_the_index(writable, png, headers):
    files, url = {"images": ("new.png", png(1))}, writable.url + "/v1/items"
    assert writable.post("/v1/items", files=files, headers=headers).status_code == 403
    asked = {"params": {"id": "dogs/01.png"}, "headers": headers}
    assert httpx.delete(url, **asked).status_code == 403
    preflight = httpx.options(url, headers=headers | {"access-control-request-method": "DELETE"})
    assert "access-control-allow-origin" not in preflight.headers
    assert len(list_ids(writable.root)) == 40


@pytest.mark.parametrize(
    ("name", "path"),
    [("/dev/zero", "zero"), ("../../secret.png", "secret.png"), ("a/b.png", "a/b.png")],
)
def test_a_file_name_leads_to_no_file_of_the_machine(writable, png, name, path):
    assert add(writable, (name, png(1)), items=[{"id": "new"}]).status_code == 200
    item = writable.get("/v1/items", params={"id": "new"}).json()["items"][0]
    assert item["metadata"]["path"] == path


def test_a_disk_that_is_full_is_told_and_nothing_is_changed(
    tmp_path, make_project, run_service, png
):
    disk = tmp_path / "disk"
    with small_disk.mount(disk, "16m"):
        root = make_project(disk)
        with serve_writable(run_service, root) as running:
            assert add(running, ("a.png", png(100))).status_code == 200
            ballast = small_disk.fill(disk)
            for _ in range(2):
                full = add(running, ("b.png", png(101)))
                assert full.status_code == 507, full.text
                assert "nothing was changed" in full.json()["detail"]
                assert find_best(running, png(100)) == "a.png"
            assert "b.png" not in list_ids(root)
            ballast.unlink()
            assert add(running, ("b.png", png(101))).status_code == 200
        assert {"a.png", "b.png"} <= list_ids(root)
