"""What a candidate did on live searches, and what the gate makes of it."""

from irgen.releases import live
from irgen.releases.live import Sums


def test_sums_of_all_processes_and_of_this_index_alone_are_read(project):
    project.builds(1)
    index = project.root / "data" / "index"
    assert live.read(project.root, index) == Sums()
    name = live.identify(index)
    live.write(project.root, name, "a", Sums(compared=2, overlap=1.5, seconds=0.25))
    live.write(project.root, name, "b", Sums(compared=1, overlap=0.5, answered=3))
    live.write(project.root, "another", "c", Sums(failed=9))
    (project.root / ".cache" / "serve" / "candidate" / f"{name}.d.json").write_text("{")
    assert live.read(project.root, index) == Sums(compared=3, overlap=2, seconds=0.25, answered=3)


def test_a_candidate_that_failed_is_kept_back_and_one_that_did_not_is_described(
    project, release, irgen
):
    release()
    project.builds(2)
    name = live.identify(project.root / "data" / "index")
    live.write(project.root, name, "a", Sums(compared=9, failed=1, overlap=9))
    refused = release()
    assert (refused["status"], refused["state"]) == (3, "rejected")
    assert "1 of 10 live searches failed on the candidate" in refused["verdict"]["why"]
    live.write(project.root, name, "a", Sums(compared=10, overlap=9, seconds=0.2))
    done = irgen("release")
    assert done.status == 0
    assert "live searches: 10 compared, of the first ten hits 90% the same, 20 ms" in done.out
