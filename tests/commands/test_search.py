"""``irgen search``: every option, and every mistake."""

import json

import pytest
import torch

from irgen.catalog.images.pixels import decode_images
from irgen.index.index import Index
from irgen.search.nearby import COPY_COSINE

IDS = ("cats/00.png", "dogs/01.png")


def hits(run_ok, *arguments: object) -> list[list[dict]]:
    """Return the hits of each query from the JSON output."""
    return [each["hits"] for each in json.loads(run_ok("search", *arguments, "--json"))]


def test_an_image_finds_itself_first_in_a_table_with_a_row_a_hit(project, run_ok):
    lines = run_ok("search", "photos/003.png", "-k", 3).splitlines()
    assert lines[0].split("  ")[0] == "query"
    assert [name.strip() for name in lines[0].split("  ") if name.strip()] == [
        *("query", "rank", "id", "score", "same label", "found by", "label")
    ]
    assert len(lines) == 2 + 3 and set(lines[1]) == {"-", " "}
    first = lines[2].split()
    assert first[:6] == ["photos/003.png", "1", "dogs/03.png", "1.000", "90%", "retriever"]
    assert first[-1] == "dogs"


def test_every_query_gets_its_own_hits_in_the_order_given(project, run_ok):
    answers = json.loads(run_ok("search", "photos/100.png", "photos/003.png", "--json", "--k", 40))
    assert [each["query"] for each in answers] == ["photos/100.png", "photos/003.png"]
    assert answers[1]["hits"][0]["id"] == "dogs/03.png"
    for each in answers:
        assert [hit["rank"] for hit in each["hits"]] == list(range(1, 41))
        scores = [hit["score"] for hit in each["hits"]]
        assert scores == sorted(scores, reverse=True)


def test_ten_are_found_unless_told_otherwise_and_never_more_than_there_are(project, run_ok):
    assert len(hits(run_ok, "photos/003.png")[0]) == 10
    assert len(hits(run_ok, "photos/003.png", "-k", 1000)[0]) == 40


def test_more_like_an_image_of_the_index_needs_no_file_and_leaves_it_out(project, run_ok):
    for name, answer in zip(IDS, hits(run_ok, "--ids", *IDS, "-k", 40), strict=True):
        assert len(answer) == 39 and name not in {hit["id"] for hit in answer}
        assert all(hit["log_probability"] is None for hit in answer)
    assert "found by" not in run_ok("search", "--ids", *IDS)


def test_a_filter_finds_what_it_lets_through_and_all_of_it(project, run_ok):
    allow = "label = 'cats' AND price < 20"
    (answer,) = hits(run_ok, "photos/003.png", "--allow", allow)
    assert sorted(hit["id"] for hit in answer) == [f"cats/{n:02d}.png" for n in range(0, 20, 4)]
    (answer,) = hits(run_ok, "--ids", IDS[0], "--allow", "id LIKE 'dogs/1%'", "-k", 40)
    assert {hit["id"] for hit in answer} == {f"dogs/{n}.png" for n in range(10, 20) if n % 4}


def test_words_find_what_has_them_with_a_filter_too(project, run_ok):
    words = ("--words", "Dogs 1")
    (answer,) = hits(run_ok, "photos/003.png", *words, "-k", 40)
    assert answer and all(hit["id"].startswith("dogs/1") for hit in answer)
    assert hits(run_ok, "photos/003.png", *words, "--allow", "label = 'cats'") == [[]]


@pytest.mark.parametrize(
    "bound", [("--min-score", 1.1), ("--min-probability", 0.95), ("--allow", "price > 99")]
)
def test_where_nothing_is_good_enough_the_answer_is_none(project, run_ok, bound):
    lines = run_ok("search", "photos/003.png", "photos/100.png", *bound).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["photos/003.png", "no", "match"],
        ["photos/100.png", "no", "match"],
    ]
    assert hits(run_ok, "photos/003.png", *bound) == [[]]
    assert run_ok("search", "photos/003.png", *bound, "--csv").count("\n") == 1


def test_bounds_keep_what_is_good_enough(project, run_ok):
    (every,) = hits(run_ok, "photos/100.png", "-k", 40)
    for name, bound in (("score", "--min-score"), ("same_label", "--min-probability")):
        least = (every[4][name] + every[5][name]) / 2
        (answer,) = hits(run_ok, "photos/100.png", "-k", 40, bound, least)
        assert answer == every[:5]


def test_near_duplicates_are_hidden_if_asked(project, run_ok, png):
    (project / "photos" / "twin.png").write_bytes(png(3))
    run_ok("add", "photos/twin.png")
    both = {hit["id"] for hit in hits(run_ok, "photos/003.png")[0][:2]}
    assert both == {"dogs/03.png", "photos/twin.png"}
    (answer,) = hits(run_ok, "photos/003.png", "--distinct", 0.9999, "-k", 41)
    assert len({hit["id"] for hit in answer} & both) == 1
    assert len(hits(run_ok, "photos/003.png", "--distinct", -1)[0]) == 1


def test_few_beams_reach_what_the_retriever_knows_and_fresh_beams_the_rest(project, run_ok):
    few = ("photos/100.png", "-k", 40, "--beams", 1, "--candidates", 1)
    (answer,) = hits(run_ok, *few, "--fresh-beams", 0)
    own_folder = {hit["id"] for hit in answer if hit["by_embedding"]}  # under the query's own code
    with Index.open(project / "data" / "index") as index:
        rows = torch.from_numpy(index.view.find_existing(sorted(own_folder)))
        codes = index.view.snapshot.gather(rows, "codes")
        pixels = decode_images([project / "photos" / "100.png"], index.models.decoding)
        own_code = index.models.tokenize(index.models.embed(torch.from_numpy(pixels)))
    assert len(own_folder) < len(answer) < 40 and (codes == own_code).all()
    (more,) = hits(run_ok, *few, "--fresh-beams", 600)
    reached = {hit["id"] for hit in more if hit["by_embedding"]} - own_folder
    assert reached and {hit["id"] for hit in more} >= {hit["id"] for hit in answer}
    assert all(int(name[5:7]) % 2 for name in reached)  # every second one was trained on
    assert "embedding" in run_ok("search", *few, "--fresh-beams", 600)


def test_candidates_bound_what_is_compared(project, run_ok):
    assert len(hits(run_ok, "photos/100.png", "-k", 3, "--candidates", 40)[0]) == 3
    (few,) = hits(run_ok, "photos/100.png", "-k", 3, "--candidates", 3, "--fresh-beams", 0)
    (written,) = hits(run_ok, "photos/100.png", "-k", 40, "--no-rerank")
    first_hit_id = sorted(hit["log_probability"] for hit in written)[
        -3
    ]  # of one code, any may be gathered
    predicted = [hit for hit in few if not hit["by_embedding"]]
    assert len(few) == 3 and all(hit["log_probability"] >= first_hit_id for hit in predicted)


def test_without_reranking_the_score_is_what_the_retriever_gives_the_code(project, run_ok):
    (answer,) = hits(run_ok, "photos/100.png", "--no-rerank", "-k", 40)
    copies = [hit for hit in answer if hit["cosine"] >= COPY_COSINE]
    assert copies == answer[: len(copies)] and all(hit["score"] == 0 for hit in copies)
    others = answer[len(copies) :]
    assert others and all(hit["score"] == hit["log_probability"] < 0 for hit in others)
    assert [hit["score"] for hit in answer] == sorted((h["score"] for h in answer), reverse=True)


def test_explanations_tell_the_code_level_by_level(project, run_ok):
    lines = run_ok("search", "photos/003.png", "-k", 2, "--explain").splitlines()
    below = lines[lines.index("") + 1 :]
    assert below[0].split("  ")[0] == "query" and "level by level" in below[0]
    assert len(below) == 2 + 2 and "dogs/03.png" in below[2]
    (answer,) = hits(run_ok, "photos/003.png", "-k", 2, "--explain")
    for hit in answer:
        description = hit["explanation"]
        assert len(description["code"]) == len(description["normalised_log_probs"]) == 3
        assert sum(description["log_probabilities"]) == pytest.approx(
            hit["log_probability"], abs=0.01
        )
        assert description["images_with_code"] >= 1
    assert answer[0]["explanation"]["trained"] is False  # as of every second image


def test_without_a_calibration_no_probability_is_told(make_other_index, project, run_ok, refused):
    make_other_index(project / "plain", [0, 1], None)
    assert "same label" not in run_ok("search", "photos/003.png", "--index", "plain")
    assert hits(run_ok, "photos/003.png", "--index", "plain")[0][0]["same_label"] is None
    line = refused("search", "photos/003.png", "--index", "plain", "--min-probability", 0.5)
    assert "calibration" in line and "min_score" in line


def test_another_project_and_another_index_are_searched_where_they_are(
    project, run_ok, monkeypatch, tmp_path
):
    expected = hits(run_ok, "photos/003.png")
    monkeypatch.chdir(tmp_path)
    query = project / "photos" / "003.png"
    assert hits(run_ok, query, "--root", "project") == expected
    (project / "data" / "index").rename(tmp_path / "elsewhere")
    assert hits(run_ok, query, "--index", "elsewhere") == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing argument 'QUERY...'"),
        (("photos/003.png", "--ids"), "not in the index: 'photos/003.png'"),
        (("photos/003.png", "--json", "--csv"), "exclude each other"),
        (("photos/003.png", "-k", 0), "k: 0 is too few"),
        (("photos/003.png", "--beams", 0), "beams: 0"),
        (("photos/003.png", "--candidates", -1), "candidates: -1"),
        (("photos/003.png", "--fresh-beams", -1), "fresh"),
        (("photos/003.png", "--distinct", 2), "distinct: 2.0"),
        (("photos/003.png", "--min-probability", 1.5), "1.5"),
        (("photos/nobody.png",), "photos/nobody.png: No such file"),
        (("photos/003.png", "photos/"), "photos/: Is a directory"),
        (("--ids", "nobody"), "not in the index: 'nobody'"),
        (("--ids", *IDS, "--explain"), "--explain"),
        (("--ids", *IDS, "--no-rerank"), "--no-rerank"),
        (("--ids", *IDS, "--fresh-beams", 3), "--fresh-beams"),
        (("--ids", *IDS, "--hedge", 1), "--hedge"),
        (("photos/003.png", "--hedge", -1), "hedge: -1.0 is not allowed"),
        (("photos/003.png", "--allow", "label ="), "label ="),
        (("photos/003.png", "--allow", "colour = 'red'"), "price"),
        (("photos/003.png", "--allow", "price + 1"), "true or false"),
    ],
)
def test_a_mistake_is_told_in_one_line(refused, arguments, says):
    assert says in refused("search", *arguments)


def test_an_image_that_is_none_is_named(project, refused, png):
    for content, reason in ((b"", "empty"), (b"text", "format"), (png(5)[:50], "damaged")):
        (project / "broken.png").write_bytes(content)
        line = refused("search", "photos/003.png", "broken.png")
        assert "broken.png" in line and reason in line


def test_an_interrupt_ends_with_130_and_no_traceback(project, run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Index, "search", interrupted)
    outcome = run("search", "photos/003.png")
    assert (outcome.status, outcome.out, outcome.err) == (130, "", "irgen search: interrupted\n")


@pytest.mark.parametrize("option", ["--beams", "--candidates", "--fresh-beams"])
@pytest.mark.parametrize("value", [10**9, 10**30])
def test_numbers_that_would_not_fit_in_memory_are_refused(refused, option: str, value: int):
    assert f"{value:,} is too many; allowed: at most" in refused(
        "search", "photos/100.png", option, value
    )


def test_a_k_beyond_the_index_finds_every_image(project, run_ok):
    assert len(run_ok("search", "photos/003.png", "-k", 10**30, "--csv").splitlines()) == 1 + 40


def test_a_least_score_that_is_no_number_is_refused(refused):
    assert "min_score: nan" in refused("search", "photos/100.png", "--min-score", "nan")
