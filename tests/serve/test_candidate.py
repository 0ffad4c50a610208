"""Another index is tried on live searches."""

from functools import partial

import pytest

from irgen.errors import ReleaseError
from irgen.releases import live
from irgen.releases.live import Sums
from irgen.serve.candidate import Candidate, _draw, compute_overlap, locate
from irgen.serve.champion import Champion
from irgen.serve.measurements import Measurements
from irgen.serve.query import QueryInput

from ..waiting import wait_until


@pytest.fixture
def run(tmp_path, make_project, run_service):
    """Serve images 0 to 19, and try an index of others."""
    runs = []

    def start(numbers, **options):
        make_project(tmp_path / "other", numbers)
        root = make_project(tmp_path / "project", range(20))
        follower = Champion(lambda: tmp_path / "other" / "data" / "index", "cpu")
        try_out = lambda figures: Candidate(root, follower, figures, **options)  # noqa: E731
        runs.append(run_service(root, try_out=try_out))
        running = next(runs[-1])
        wait_until(lambda: running.get("/readyz").status_code == 200)
        wait_until(lambda: follower.served is not None)
        return running

    yield start
    for service in runs:
        next(service, None)


def search(running, **query):
    return running.post("/v1/search", json={"queries": [query], "k": 10}).json()


def read_sums(running):
    return live.read(running.root, running.root.parent / "other" / "data" / "index")


def find_first(running, png, number):
    files = [("images", ("a.png", png(number)))]
    answer = running.post("/v1/search/upload", files=files).json()
    return answer["results"][0]["hits"][0]["id"]


def test_a_share_of_the_searches_is_answered_by_the_candidate(run, png):
    running = run(range(40), share=1.0, is_shadow=False)
    assert find_first(running, png, 30) == "dogs/30.png"
    wait_until(lambda: read_sums(running).answered == 1)
    assert 'irgen_candidate_searches_total{outcome="answered"} 1.0' in running.get("/metrics").text


def test_a_shadow_is_compared_and_nobody_sees_its_answers(run, png):
    running = run(range(10, 40), share=0.0, is_shadow=True)
    assert find_first(running, png, 30) != "dogs/30.png"
    wait_until(lambda: read_sums(running).compared == 1)
    sums = read_sums(running)
    assert 0 <= sums.overlap < 1 and sums.seconds > 0 and sums.champion_seconds > 0
    assert "irgen_candidate_overlap_count 1.0" in running.get("/metrics").text


def test_an_id_that_the_candidate_lacks_is_searched_with_the_champion_and_is_no_failure(run):
    running = run(range(10, 40), share=1.0, is_shadow=False)
    assert search(running, id="dogs/05.png")["index"]["images"] == 20
    assert search(running, id="dogs/13.png")["index"]["images"] == 30
    wait_until(lambda: read_sums(running) == Sums(answered=1))


def test_where_the_candidate_fails_the_champion_answers(run, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("a fault of the candidate")

    running = run(range(10, 40), share=1.0, is_shadow=False)
    tried = running.service.candidate._follower.require()
    monkeypatch.setattr(tried.index, "search_ids", fail)
    answer = search(running, id="dogs/13.png")
    assert answer["index"]["images"] == 20 and len(answer["results"][0]["hits"]) == 10
    assert search(running, id="nothing")["status"] == 400  # a mistake of the client
    wait_until(lambda: read_sums(running).failed == 1)


def test_figures_of_a_candidate_are_kept_when_another_one_takes_its_place(
    tmp_path, make_project, monkeypatch
):
    roots = [make_project(tmp_path / name, range(10, end)) for name, end in (("a", 20), ("b", 30))]
    folders = [root / "data" / "index" for root in roots]
    champion = Champion(lambda: folders[0], "cpu")
    candidate = Candidate(tmp_path, champion, Measurements(), share=1.0, is_shadow=False)
    candidate.look()
    candidate._count("answered", Sums(answered=1))
    monkeypatch.setattr(champion, "_locate", lambda: folders[1])
    candidate.look()
    assert [live.read(tmp_path, folder).answered for folder in folders] == [1, 0]


def test_an_index_is_not_compared_with_itself(run):
    running = run(range(20), share=0.5, is_shadow=True)
    running.service.candidate._follower.served = running.service.champion.served
    assert search(running, id="dogs/05.png")["index"]["images"] == 20
    assert read_sums(running) == Sums()


def test_equal_inputs_have_the_same_turn_and_shares_are_kept():
    draws = [_draw([QueryInput(id=f"image {number}")]) for number in range(5000)]
    assert sum(draw < 0.1 for draw in draws) / len(draws) == pytest.approx(0.1, abs=0.02)
    assert _draw([QueryInput(image=b"a"), QueryInput(text="x")]) == _draw([QueryInput(image=b"a")])


def test_the_overlap_counts_what_both_have():
    hit = partial(type("Hit", (), {"__init__": lambda self, id: setattr(self, "id", id)}))
    one, other = ([hit(name) for name in names] for names in ("abcd", "cdef"))
    assert compute_overlap([one], [other]) == 0.5
    assert compute_overlap([one, []], [one, []]) == 1
    assert compute_overlap([one], [[]]) == 0


def test_without_a_release_that_waits_there_is_no_latest(tmp_path):
    with pytest.raises(ReleaseError, match="no release in"):
        locate(tmp_path, "latest")
