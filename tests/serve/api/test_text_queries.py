"""Queries in words over HTTP: alone, together with a picture, and mixed with other kinds."""

import base64

import pytest

from ...captioned import NAMES, pictures


def search(running, *queries, **options):
    return running.post("/v1/search", json={"queries": list(queries), **options})


def labels(result):
    return {hit["metadata"]["label"] for hit in result["hits"]}


def test_queries_of_all_kinds_are_answered_in_their_order(running_with_words):
    image = base64.b64encode(pictures()[0]).decode()
    queries = [{"text": "green cucumber"}, {"id": NAMES[0]}, {"image": image}]
    queries += [{"image": image, "text": "red apple"}, {"text": "blue xyzzy shirt"}]
    results = search(running_with_words, *queries, k=4).json()["results"]
    assert [labels(results[n]) for n in (0, 3, 4)] == [{"cucumber"}, {"apple"}, {"shirt"}]
    assert results[2]["hits"][0]["id"] == NAMES[0] != results[1]["hits"][0]["id"]
    readings = [result["text"] for result in results]
    known = {"unknown_words": [], "read_as": {}, "full_text": False}
    assert readings == [known, None, None, known, known | {"unknown_words": ["xyzzy"]}]
    assert all(hit["same_label"] is None for hit in results[0]["hits"])


def test_a_second_page_and_filters_are_those_of_every_search(running_with_words):
    text = {"text": "ripe banana"}
    (both,) = search(running_with_words, text, k=6).json()["results"]
    (first,) = search(running_with_words, text, k=3).json()["results"]
    (second,) = search(running_with_words, text, k=3, offset=first["next_offset"]).json()["results"]
    assert first["hits"] + second["hits"] == both["hits"]
    (few,) = search(running_with_words, text, filter="label = 'shirt'", words="shirt 1").json()[
        "results"
    ]
    assert [hit["id"] for hit in few["hits"]] == ["shirt/1.png"]


def test_a_file_is_sent_together_with_words(running_with_words):
    files = [("images", ("a.png", pictures()[0]))]
    answer = running_with_words.post(
        "/v1/search/upload", files=files, data={"text": "red apple"}, params={"k": 3}
    ).json()
    (result,) = answer["results"]
    assert labels(result) == {"apple"} and result["text"]["unknown_words"] == []
    plain = running_with_words.post("/v1/search/upload", files=files, data={"text": ""}).json()
    assert plain["results"][0]["text"] is None


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"id": NAMES[0], "text": "red"}, "query 0: give one of image, url, id and text"),
        ({"text": "?"}, "no letter or digit"),
        ({"text": ""}, "no letter or digit"),
    ],
)
def test_a_mistake_is_a_problem_document_that_names_it(running_with_words, query, reason):
    answer = search(running_with_words, query)
    assert answer.status_code == 400 and reason in answer.json()["detail"]


def test_another_form_of_a_word_is_named(running_with_words):
    (result,) = search(running_with_words, {"text": "cucumbers"}, k=3).json()["results"]
    assert labels(result) == {"cucumber"}
    assert result["text"]["read_as"] == {"cucumbers": "cucumber"}


def test_unknown_words_alone_are_a_problem_document_with_these_words(running_with_words):
    answer = search(running_with_words, {"text": "red apple"}, {"text": "xyzzy plugh"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["unknown_words"] == ["xyzzy", "plugh"]
    assert "no image's texts have “xyzzy” or “plugh”" in problem["detail"]
    likely = search(running_with_words, {"text": "red apple"}, min_probability=0.5)
    assert likely.status_code == 400 and "min_probability" in likely.json()["detail"]


def test_without_a_text_encoder_full_text_search_answers(running):
    (result,) = search(running, {"text": "cats or horses"}, k=40).json()["results"]
    assert labels(result) == {"cats"} and len(result["hits"]) == 10
    assert result["text"] == {"unknown_words": ["or", "horses"], "read_as": {}, "full_text": True}
    assert result["hits"][0]["cosine"] is None and result["hits"][0]["score"] > 0
    refused = search(running, {"text": "cats", "image": base64.b64encode(pictures()[0]).decode()})
    assert refused.status_code == 400 and "no text encoder" in refused.json()["detail"]


def test_info_says_what_answers_words_and_figures_count_them_by_kind(running_with_words):
    assert running_with_words.get("/v1/info").json()["text_method"] == "text encoder"
    search(running_with_words, {"text": "red apple"}, {"id": NAMES[0]})
    figures = running_with_words.get("/metrics").text
    assert 'irgen_queries_total{kind="text"}' in figures
    assert 'irgen_queries_total{kind="id"}' in figures
