"""The flow ``update``, with a real Prefect server and a real source."""

import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from flows import events, lock, release, source_check, state
from flows.build import build
from flows.lock import Holder
from flows.update import update
from irgen.commands.cli import main
from irgen.files.digests import digest
from irgen.tracking import locations, provenance, run_log

from ..conftest import PrefectServer, Toy, until
from .conftest import WORK, put, read_events, run_flow, run_name

pytestmark = pytest.mark.slow


def test_what_has_changed_is_published_and_told_and_no_more(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    state = run_flow(update, living)
    assert (state.name, living.ran()) == ("Released", ["index"])
    assert "6 new, 0 changed, 0 gone; 6 images at revision 1" in state.message

    state = run_flow(update, living)
    assert (state.name, living.ran(), len(gate["asked"])) == ("Unchanged", [], 1)
    assert run_name(prefect_server, state) == "update · nothing new"

    put(living, "a/1.png", png(100))
    put(living, "b/7.png", png(7))
    (living.root / "images" / "a" / "2.png").unlink()
    state = run_flow(update, living)
    assert "release 2 is served: 1 new, 1 changed, 1 gone; 6 images at revision 2" in state.message
    expected = "update · images · 1 new, 1 changed, 1 gone · release 2"
    assert run_name(prefect_server, state) == expected
    assert living.ran() == ["index"]

    def both() -> bool:
        return len(read_events(prefect_server, events.UPDATED, living.root)) == 2

    until(both, "not one event for each publication")
    payload = read_events(prefect_server, events.UPDATED, living.root)[0]
    assert payload["new"] == 1 and payload["images"] == 6 and payload["version"] == 2
    assert read_events(prefect_server, events.REJECTED, living.root) == []
    asked = {"artifacts": {"key": {"any_": ["database"]}}, "sort": "CREATED_DESC"}
    assert "1 new, 1 changed, 1 gone" in prefect_server.ask("/artifacts/filter", asked)[0]["data"]


def test_a_source_that_cannot_be_listed_fails_at_once_in_its_own_words(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    run_flow(update, living)
    (living.root / "images").rename(living.root / "elsewhere")
    state = run_flow(update, living)
    assert state.is_failed() and "'images' cannot be read" in state.message
    assert living.ran() == ["index"]  # the first time


def read_page(server: PrefectServer, key: str) -> str:
    asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    return server.ask("/artifacts/filter", asked)[0]["data"]


def test_a_source_that_lacks_too_much_is_held_and_reported_once_and_goes_on_when_it_is_back(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    for number in range(30):
        put(living, f"{'bcd'[number % 3]}/{number}.png", png(number + 20))
    run_flow(update, living)
    folder, manifest = living.root / "images", digest(read_manifest(living))
    (folder / "b").rename(living.root / "b")
    for _ in range(2):
        state = run_flow(update, living)
        assert (state.name, state.is_failed()) == ("Held", True)
        assert "10 of 36 images (b 10), all images of b among them" in state.message
        assert "irgen release --accept-removals" in state.message
    assert run_name(prefect_server, state) == "update · images · held"
    assert digest(read_manifest(living)) == manifest and living.ran() == ["index"]
    until(lambda: read_events(prefect_server, events.HELD, living.root), "no event")
    (payload,) = read_events(prefect_server, events.HELD, living.root)
    assert (payload["gone"], payload["by_label"], payload["whole_labels"]) == (10, {"b": 10}, ["b"])
    page = read_page(prefect_server, "held")
    assert "| b | 10 |" in page and "- `b/0.png`" in page

    (living.root / "b").rename(folder / "b")
    assert run_flow(update, living).name == "Unchanged"  # no stage has to run
    folder.rename(living.root / "elsewhere")
    folder.mkdir()
    state = run_flow(update, living)
    assert state.name == "Held" and "holds no image" in state.message
    until(lambda: len(read_events(prefect_server, events.HELD, living.root)) == 2, "no event")
    assert "All 36 images would go" in read_page(prefect_server, "held")
    folder.rmdir()
    (living.root / "elsewhere").rename(folder)
    put(living, "b/new.png", png(99))
    state = run_flow(update, living)
    assert "1 new, 0 changed, 0 gone; 37 images at revision 2" in state.message


def test_a_source_that_is_not_listed_in_time_is_held(
    prefect_server: PrefectServer, living: Toy, gate: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_flow(update, living)
    with monkeypatch.context() as patch:
        patch.setattr(source_check, "TIMEOUT_SECONDS", 0.01)
        state = run_flow(update, living)
    assert state.name == "Held" and "was not listed within 0.01 seconds" in state.message
    assert "nothing is removed" in state.message
    assert run_flow(update, living).name == "Unchanged"


def test_removals_that_a_person_accepts_are_served(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    for number in range(10):
        put(living, f"b/{number}.png", png(number + 20))
    run_flow(update, living)
    shutil.rmtree(living.root / "images" / "b")
    assert run_flow(update, living).name == "Held"
    assert main(["release", "--accept-removals", "--root", str(living.root)]) == 0
    assert "0 new, 0 changed, 10 gone; 6 images" in run_flow(update, living).message


def read_manifest(toy: Toy) -> str:
    return (toy.root / "data" / "download" / "manifest.parquet").read_bytes().hex()


def test_what_was_cut_short_is_done_by_the_next_update(
    prefect_server: PrefectServer, living: Toy, gate: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt  # as near to a power cut as this process can come

    with monkeypatch.context() as patch:
        patch.setattr(release, "report", cut)
        with pytest.raises(KeyboardInterrupt):
            run_flow(update, living)
    assert read_events(prefect_server, events.UPDATED, living.root) == []
    state = run_flow(update, living)
    assert state.name == "Released" and "6 new" in state.message
    assert living.ran() == ["index"]
    until(lambda: read_events(prefect_server, events.UPDATED, living.root), "no event")
    assert run_flow(update, living).name == "Unchanged"


def test_what_was_not_settled_is_settled_without_a_stage(
    prefect_server: PrefectServer, living: Toy, gate: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate["settled"] = False
    run_flow(update, living)
    left = locations.run_logs(living.root)  # to the publisher: the flow's own is not real here
    until(lambda: not run_log.list_unsynced(left), "nobody publishes what the stages left")
    assert run_flow(update, living).name == "Released"
    gate["settled"] = True
    assert run_flow(update, living).name == "Released"
    assert run_flow(update, living).name == "Unchanged"
    assert (len(gate["asked"]), living.ran()) == (3, ["index"])
    assert len(read_events(prefect_server, events.UPDATED, living.root)) == 1

    assert gate["synced"].count([]) == 0
    monkeypatch.setattr(run_log, "list_unsynced", lambda folder: [folder / "left" / "index.jsonl"])
    assert run_flow(update, living).name == "Unchanged"
    assert gate["synced"].count([]) == 1  # what MLflow did not get while it was down


def test_a_worse_index_is_kept_back_and_why_is_told_once(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    run_flow(update, living)
    gate["passes"] = lambda models: False
    put(living, "a/9.png", png(9))
    (living.root / "images" / "a" / "2.png").unlink()
    state = run_flow(update, living)
    assert (state.name, state.message) == ("Rejected", "candidate 2 is kept back: because")
    asked = {"artifacts": {"key": {"any_": ["rejected"]}}, "sort": "CREATED_DESC"}
    page = prefect_server.ask("/artifacts/filter", asked)[0]["data"]
    assert (
        "1 new, 0 changed, 1 gone" in page
        and "Searches still find the images that are gone." in page
    )
    run_flow(build, living)
    until(lambda: read_events(prefect_server, events.REJECTED, living.root), "no event")
    (payload,) = read_events(prefect_server, events.REJECTED, living.root)
    assert (payload["why"], payload["figures"]) == ("because", {"queries": 3})
    assert (payload["new"], payload["gone"]) == (1, 1)
    gate["passes"] = lambda models: True
    put(living, "a/10.png", png(10))
    assert "2 new" in run_flow(update, living).message  # since it was served


HELD = Holder(flow="build", run="someone", process=1)


def test_an_update_during_a_build_is_dropped_on_purpose_and_asked_for_again(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    with lock.hold(living.root, HELD, on_wait=None):
        state = run_flow(update, living)
        assert state.is_cancelled() and state.name == "Dropped"
        assert "the build of process 1 (flow run someone)" in state.message and living.ran() == []
        assert lock.take_request(living.root)
        run_flow(update, living)
    assert lock.take_request(living.root)


def test_of_two_updates_at_once_one_is_dropped_and_another_is_asked_for(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    slow = f"import time; time.sleep(8)\n{WORK}"
    (living.root / "work.py").write_text(slow)
    states = []
    both = [
        threading.Thread(target=lambda: states.append(run_flow(update, living).name))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(120)
    assert sorted(states) == ["Dropped", "Released"]
    assert living.ran() == ["index"] and len(gate["asked"]) == 1
    until(
        lambda: read_events(prefect_server, events.CHANGED, living.root),
        "no other update asked for",
    )


def test_a_build_waits_for_whoever_has_the_project(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    with lock.hold(living.root, HELD, on_wait=None):
        waiting = threading.Thread(target=run_flow, args=[build, living])
        waiting.start()
        time.sleep(3)
        assert living.ran() == [] and waiting.is_alive()
    waiting.join(120)
    assert living.ran() == ["index"]


def test_an_update_that_was_dropped_is_asked_for_though_the_holder_fails(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    (living.root / "work.py").write_text(
        "import pathlib; pathlib.Path('.cache/flows/asked').touch(); raise SystemExit('no')"
    )
    assert run_flow(update, living).is_failed()
    until(
        lambda: read_events(prefect_server, events.CHANGED, living.root),
        "no other update asked for",
    )
    assert not lock.take_request(living.root)


def test_the_same_index_again_after_another_one_is_told_of_again(
    prefect_server: PrefectServer, living: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.write_last_pass(living.root, state.LastPass(key="", settled=False))
    for revision, bundle in enumerate("ABAA", 1):
        monkeypatch.setattr(provenance, "data_revision", lambda root, now=revision: now)
        payload = {"version": "AB".index(bundle) + 1, "bundle": bundle}
        new = release.announce(living.root, events.UPDATED, payload)
        assert new == (revision < 4)
    until(
        lambda: len(read_events(prefect_server, events.UPDATED, living.root)) == 3, "not all told"
    )
