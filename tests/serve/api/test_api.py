"""The HTTP API: searches, items, pictures, and what watches the service."""

import asyncio
import base64
import io

import httpx
import pytest
from fastapi import HTTPException
from PIL import Image

from irgen.serve.requests import run_while_connected


def search(running, *queries, **options):
    return running.post("/v1/search", json={"queries": list(queries), **options})


def upload(running, *contents, **params):
    files = [("images", (f"{n}.png", content)) for n, content in enumerate(contents)]
    return running.post("/v1/search/upload", files=files, params=params)


def test_an_uploaded_image_finds_itself_with_all_that_is_known_of_it(running, png):
    answer = upload(running, png(3), k=4).json()
    assert answer["index"] == {"name": "index", "release": None, "images": 40}
    hits = answer["results"][0]["hits"]
    assert len(hits) == 4 and hits[0]["id"] == "dogs/03.png"
    assert hits[0]["score"] == pytest.approx(1.0, abs=1e-3)
    assert hits[0]["same_label"] == pytest.approx(0.9, abs=1e-3)
    assert len(hits[0]["code"]) == 3
    assert hits[0]["metadata"]["label"] == "dogs" and hits[0]["metadata"]["price"] is None
    assert hits[0]["thumbnail"] == "/v1/thumbnail?id=dogs%2F03.png"
    assert answer["milliseconds"]["batch"] >= 1


def test_images_in_base64_and_ids_are_answered_in_their_order(running, png):
    encoded = base64.b64encode(png(5)).decode()
    queries = [{"image": encoded}, {"id": "cats/00.png"}]
    queries.append({"image": f"data:image/png;base64,{encoded}"})
    first, second, third = search(running, *queries, k=3).json()["results"]
    assert first["hits"][0]["id"] == "dogs/05.png" and first["hits"] == third["hits"]
    assert all(hit["id"] != "cats/00.png" for hit in second["hits"])


def test_a_second_page_goes_on_where_the_first_ended(running):
    both = search(running, {"id": "dogs/01.png"}, k=6).json()["results"][0]
    first = search(running, {"id": "dogs/01.png"}, k=3).json()["results"][0]
    assert first["next_offset"] == 3
    second = search(running, {"id": "dogs/01.png"}, k=3, offset=3).json()["results"][0]
    assert first["hits"] + second["hits"] == both["hits"]
    last = search(running, {"id": "dogs/01.png"}, k=30, offset=30).json()["results"][0]
    assert len(last["hits"]) == 9 and last["next_offset"] is None


def test_options_are_those_of_the_search(running, png):
    named = upload(running, png(1), k=20, words="CATS 0").json()["results"][0]["hits"]
    assert sorted(hit["id"] for hit in named) == ["cats/00.png", "cats/04.png", "cats/08.png"]
    filtered = upload(running, png(1), k=20, filter="label = 'cats'").json()["results"][0]["hits"]
    assert len(filtered) == 10 and all(hit["id"].startswith("cats/") for hit in filtered)
    sure = upload(running, png(1), k=20, min_score=0.9999).json()["results"][0]["hits"]
    assert [hit["id"] for hit in sure] == ["dogs/01.png"]
    likely = upload(running, png(1), k=40, min_probability=0.8999).json()["results"][0]["hits"]
    assert [hit["id"] for hit in likely] == ["dogs/01.png"]
    order = upload(running, png(1), k=5, rerank=False).json()["results"][0]["hits"]
    assert order[0]["score"] == 0  # a copy has the best score
    hedged = upload(running, png(1), k=5, hedge=0.5).json()["results"][0]
    assert len(hedged["hits"]) == 5 and hedged["untaught"] is None  # no ranking here


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"queries": []}, 422, "queries"),
        ({"queries": [{"id": "dogs/01.png"}], "k": 0}, 422, "body.k"),
        ({"queries": [{"id": "dogs/01.png"}], "kk": 3}, 422, "body.kk"),
        ({"queries": [{}]}, 400, "query 0: give one of image, url, id and text"),
        ({"queries": [{"id": "dogs/01.png"}, {"id": "nothing"}]}, 400, "'nothing'"),
        ({"queries": [{"image": "%%%"}]}, 400, "query 0: image is not base64"),
        ({"queries": [{"image": "AAAA"}]}, 400, "not an image"),
        ({"queries": [{"id": "dogs/01.png"}], "filter": "label =="}, 400, "filter"),
        ({"queries": [{"id": "dogs/01.png"}], "filter": "colour = 1"}, 400, "colour"),
        ({"queries": [{"id": "dogs/01.png"}], "words": "?"}, 400, "no letter or digit"),
    ],
)
def test_a_mistake_is_a_problem_document_that_names_it(running, body, status, reason):
    answer = running.post("/v1/search", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status and reason in answer.json()["detail"]


def test_one_wrong_id_does_not_disturb_other_requests_of_its_batch(running):
    wrong = running.service.batcher
    assert search(running, {"id": "nothing"}).status_code == 400
    assert search(running, {"id": "dogs/01.png"}).status_code == 200
    assert len(wrong) == 0


def test_a_request_that_is_too_large_is_refused_and_others_go_on(running):
    answer = upload(running, bytes(running.service.limits.bytes + 1))
    assert answer.status_code == 413 and "20,000,000 bytes" in answer.json()["detail"]
    assert running.get("/healthz").status_code == 200


def test_items_are_listed_by_page_filter_and_id(running):
    listed = running.get("/v1/items", params={"limit": 3, "offset": 38}).json()
    assert listed["total"] == 40 and len(listed["items"]) == 2 and listed["next_offset"] is None
    cats = running.get("/v1/items", params={"filter": "label = 'cats'", "limit": 4}).json()
    assert cats["total"] == 10 and cats["next_offset"] == 4
    asked = {"id": ["dogs/03.png", "cats/00.png"]}
    chosen = running.get("/v1/items", params=asked).json()["items"]
    assert [item["id"] for item in chosen] == asked["id"]
    missing = running.get("/v1/items", params={"id": "nothing"})
    assert missing.status_code == 404 and "'nothing'" in missing.json()["detail"]


def test_a_picture_is_the_file_and_a_thumbnail_is_made_once(running, png):
    picture = running.get("/v1/picture", params={"id": "dogs/03.png"})
    assert picture.content == png(3)
    assert picture.headers["content-disposition"] == "attachment"  # never shown as a page
    small = running.get("/v1/thumbnail", params={"id": "dogs/03.png"})
    assert small.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(small.content)).size == (185, 222)
    running.root.joinpath("dogs/03.png").rename(running.root / "away")
    assert running.get("/v1/thumbnail", params={"id": "dogs/03.png"}).content == small.content
    gone = running.get("/v1/picture", params={"id": "dogs/03.png"})
    assert gone.status_code == 404 and "data/download" in gone.json()["detail"]
    running.root.joinpath("away").rename(running.root / "dogs/03.png")


@pytest.mark.parametrize("path", ["/v1/thumbnail?id=dogs/05.png", "/v1/picture?id=dogs/05.png",
                                  "/static/page.js", "/upload?q={upload}"])  # fmt: skip
def test_what_a_browser_has_already_is_not_sent_again(running, png, path):
    sent = running.post("/search", files={"image": ("a.png", png(4))}, follow_redirects=False)
    path = path.format(upload=sent.headers["location"].removeprefix("/?q="))
    first = running.get(path)
    tag = first.headers["etag"]
    again = running.get(path, headers={"if-none-match": f'"other", {tag}'})
    assert (again.status_code, again.content) == (304, b"") and again.headers["etag"] == tag
    assert running.get(path, headers={"if-none-match": '"other"'}).content == first.content


def test_info_names_columns_and_options(running):
    info = running.get("/v1/info").json()
    assert info["columns"] == {"path": "String", "label": "String", "sha256": "String",
                               "price": "Float64"}  # fmt: skip
    assert info["options"]["candidates"] == 50 and info["calibrated"] and info["problem"] is None
    assert info["text_method"] == "full-text search"  # over ids and labels


def test_figures_count_requests_queries_and_empty_answers(running, png):
    def figure(name):
        lines = running.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])

    images = 'irgen_queries_total{kind="image"}'
    upload(running, png(1))
    before = figure(images), figure("irgen_empty_answers_total")
    upload(running, png(1), png(2), min_score=2.0)
    after = figure(images), figure("irgen_empty_answers_total")
    assert (after[0] - before[0], after[1] - before[1]) == (2, 2)
    assert figure("irgen_index_images") == 40


def test_every_answer_has_a_request_id_and_headers_against_misuse(running):
    for path in ("/", "/v1/info", "/nothing", "/static/page.js"):
        headers = running.get(path).headers
        assert len(headers["x-request-id"]) == 16
        assert "script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_description_of_the_api_has_examples(running):
    described = running.get("/v1/openapi.json").json()
    assert set(described["paths"]) >= {"/v1/search", "/v1/search/upload", "/v1/items", "/readyz"}
    assert described["components"]["schemas"]["HitBody"]["examples"]
    assert not [path for path in described["paths"] if path in ("/", "/why", "/catalogue")]


def test_head_is_answered_as_get_without_a_body(running):
    answer = httpx.head(running.url + "/readyz")
    assert answer.status_code == 200 and answer.content == b""


def test_a_number_that_is_not_finite_is_refused(running):
    query = '{"queries": [{"id": "dogs/01.png"}], "min_score": NaN}'
    kind = {"content-type": "application/json"}
    answer = running.post("/v1/search", content=query, headers=kind)
    assert answer.status_code == 422 and "min_score" in answer.json()["detail"]


def test_what_a_client_asked_that_has_left_is_given_up():
    class Gone:
        async def is_disconnected(self):
            return True

    async def main():
        work = asyncio.get_running_loop().create_future()

        async def wait():
            await work

        with pytest.raises(HTTPException, match="gone"):
            await run_while_connected(Gone(), wait())
        await asyncio.sleep(0)
        return work.cancelled()

    assert asyncio.run(main())
