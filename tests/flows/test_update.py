"""The flow ``update``, with a real Prefect server and a real source; the gate is told what to
say."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import build as building
from flows import events, lock, release, source_check, state, training_revision
from flows.build import build
from flows.lock import Holder
from flows.release import Decision
from flows.retrain import retrain
from flows.update import update
from irgen.commands.cli import main
from irgen.files.digests import digest
from irgen.files.records import write_json
from irgen.tracking import locations, provenance, run_log

from .conftest import ROOT, PrefectServer, Toy, until

pytestmark = pytest.mark.slow

LIVING = """
stages:
  download:
    cmd: python -m irgen download
    always_changed: true
    outs:
      - data/download: {persist: true}
  index:
    cmd: python work.py index
    deps: [training.yaml, work.py, words.txt, data/download/manifest.parquet]
    outs: [data/index]
"""
WORK = """
import pathlib, yaml
with open(".ran", "a") as file:
    file.write("index\\n")
index = pathlib.Path("data/index")
index.mkdir(exist_ok=True)
trained = yaml.safe_load(open("training.yaml"))["revision"]
manifest = pathlib.Path("data/download/manifest.parquet").read_bytes()
(index / "models").write_text(f"trained on revision {trained}")
(index / "images").write_bytes(manifest)
"""


@pytest.fixture
def living(toy: Toy, png: Callable[[int], bytes], empty_store: Path) -> Toy:
    """A project with a source of images and an index; its index is not one to be searched."""
    (toy.root / "dvc.yaml").write_text(LIVING)
    (toy.root / "work.py").write_text(WORK)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "images"
    (toy.root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copyfile(ROOT / "training.yaml", toy.root / "training.yaml")
    (toy.root / "mlruns").mkdir()
    shutil.copyfile(empty_store, toy.root / "mlruns" / "mlflow.db")
    for number in range(6):
        put(toy, f"a/{number}.png", png(number))
    return toy


def put(toy: Toy, key: str, content: bytes) -> None:
    path = toy.root / "images" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``irgen release`` is to say: ``passes`` of the models' text, ``settled``; what it was
    asked, in ``asked``, and how ``irgen sync-runs`` was called, in ``synced``."""
    said: dict[str, Any] = {
        "passes": lambda models: True,
        "settled": True,
        "asked": [],
        "synced": [],
    }
    served: dict[str, Any] = {"bundle": None, "version": 0}

    def run(root: Path, *, build: str, log: Any) -> Decision:
        index = root / "data" / "index"
        models = (index / "models").read_text()
        bundle = digest(models, (index / "images").read_bytes().hex())
        said["asked"].append(models)
        released = said["passes"](models)
        new = released and served["bundle"] != bundle
        if new:
            served.update(bundle=bundle, version=served["version"] + 1)
        about = {
            "version": served["version"] + (not released),
            "name": bundle[:8],
            "bundle": bundle,
            "revision": 1,
            "champion": served["version"] or None,
            "verdict": {"passed": released, "why": "because", "figures": {"queries": 3}},
            "settled": said["settled"],
            "errors": [] if said["settled"] else ["MLflow is down"],
        }
        return Decision(released=released, outcome=about)

    def run_sync(root: Path, build: str, log: Any, options: list[str]) -> tuple[str, ...]:
        said["synced"].append(options)
        return ()

    monkeypatch.setattr(release, "run", run)
    monkeypatch.setattr(building, "run_sync", run_sync)
    return said


def go(flow: Callable[..., Any], toy: Toy) -> Any:
    """Runs a flow in this process and returns the state it ends in."""
    return flow(str(toy.root), return_state=True)


def name(server: PrefectServer, state: Any) -> str:
    """Return the name of the flow run that ended in a state."""
    return server.ask(f"/flow_runs/{state.state_details.flow_run_id}")["name"]


def told(server: PrefectServer, event: str, root: Path) -> list[dict[str, Any]]:
    """What events of a name said, of this project, the latest first."""
    asked = {"filter": {"event": {"name": [event]}}, "limit": 50}
    found = server.ask("/events/filter", asked)["events"]
    return [each["payload"] for each in found if each["resource"].get("irgen.root") == str(root)]


def test_what_has_changed_is_published_and_told_and_no_more(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    state = go(update, living)
    assert (state.name, living.ran()) == ("Released", ["index"])
    assert "6 new, 0 changed, 0 gone; 6 images at revision 1" in state.message

    state = go(update, living)
    assert (state.name, living.ran(), len(gate["asked"])) == ("Unchanged", [], 1)
    assert name(prefect_server, state) == "update · nothing new"

    put(living, "a/1.png", png(100))
    put(living, "b/7.png", png(7))
    (living.root / "images" / "a" / "2.png").unlink()
    state = go(update, living)
    assert "release 2 is served: 1 new, 1 changed, 1 gone; 6 images at revision 2" in state.message
    expected = "update · images · 1 new, 1 changed, 1 gone · release 2"
    assert name(prefect_server, state) == expected
    assert living.ran() == ["index"]

    def both() -> bool:
        return len(told(prefect_server, events.UPDATED, living.root)) == 2

    until(both, "not one event for each publication")
    payload = told(prefect_server, events.UPDATED, living.root)[0]
    assert payload["new"] == 1 and payload["images"] == 6 and payload["version"] == 2
    assert told(prefect_server, events.REJECTED, living.root) == []
    asked = {"artifacts": {"key": {"any_": ["database"]}}, "sort": "CREATED_DESC"}
    assert "1 new, 1 changed, 1 gone" in prefect_server.ask("/artifacts/filter", asked)[0]["data"]


def test_a_source_that_cannot_be_listed_fails_at_once_in_its_own_words(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    go(update, living)
    (living.root / "images").rename(living.root / "elsewhere")
    state = go(update, living)
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
    go(update, living)
    folder, manifest = living.root / "images", digest(read_manifest(living))
    (folder / "b").rename(living.root / "b")
    for _ in range(2):
        state = go(update, living)
        assert (state.name, state.is_failed()) == ("Held", True)
        assert "10 of 36 images (b 10), all images of b among them" in state.message
        assert "irgen release --accept-removals" in state.message
    assert name(prefect_server, state) == "update · images · held"
    assert digest(read_manifest(living)) == manifest and living.ran() == ["index"]
    until(lambda: told(prefect_server, events.HELD, living.root), "no event")
    (payload,) = told(prefect_server, events.HELD, living.root)
    assert (payload["gone"], payload["by_label"], payload["whole_labels"]) == (10, {"b": 10}, ["b"])
    page = read_page(prefect_server, "held")
    assert "| b | 10 |" in page and "- `b/0.png`" in page

    (living.root / "b").rename(folder / "b")
    assert go(update, living).name == "Unchanged"  # no stage has to run
    folder.rename(living.root / "elsewhere")
    folder.mkdir()
    state = go(update, living)
    assert state.name == "Held" and "holds no image" in state.message
    until(lambda: len(told(prefect_server, events.HELD, living.root)) == 2, "no event")
    assert "All 36 images would go" in read_page(prefect_server, "held")
    folder.rmdir()
    (living.root / "elsewhere").rename(folder)
    put(living, "b/new.png", png(99))
    state = go(update, living)
    assert "1 new, 0 changed, 0 gone; 37 images at revision 2" in state.message


def test_a_source_that_is_not_listed_in_time_is_held(
    prefect_server: PrefectServer, living: Toy, gate: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(update, living)
    with monkeypatch.context() as patch:
        patch.setattr(source_check, "TIMEOUT_SECONDS", 0.01)
        state = go(update, living)
    assert state.name == "Held" and "was not listed within 0.01 seconds" in state.message
    assert "nothing is removed" in state.message
    assert go(update, living).name == "Unchanged"


def test_removals_that_a_person_accepts_are_served(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    for number in range(10):
        put(living, f"b/{number}.png", png(number + 20))
    go(update, living)
    shutil.rmtree(living.root / "images" / "b")
    assert go(update, living).name == "Held"
    assert main(["release", "--accept-removals", "--root", str(living.root)]) == 0
    assert "0 new, 0 changed, 10 gone; 6 images" in go(update, living).message


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
            go(update, living)
    assert told(prefect_server, events.UPDATED, living.root) == []
    state = go(update, living)
    assert state.name == "Released" and "6 new" in state.message
    assert living.ran() == ["index"]
    until(lambda: told(prefect_server, events.UPDATED, living.root), "no event")
    assert go(update, living).name == "Unchanged"


def test_what_was_not_settled_is_settled_without_a_stage(
    prefect_server: PrefectServer, living: Toy, gate: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate["settled"] = False
    go(update, living)
    left = locations.run_logs(living.root)  # to the publisher: the flow's own is not real here
    until(lambda: not run_log.list_unsynced(left), "nobody publishes what the stages left")
    assert go(update, living).name == "Released"
    gate["settled"] = True
    assert go(update, living).name == "Released"
    assert go(update, living).name == "Unchanged"
    assert (len(gate["asked"]), living.ran()) == (3, ["index"])
    assert len(told(prefect_server, events.UPDATED, living.root)) == 1

    assert gate["synced"].count([]) == 0
    monkeypatch.setattr(run_log, "list_unsynced", lambda place: [place / "left" / "index.jsonl"])
    assert go(update, living).name == "Unchanged"
    assert gate["synced"].count([]) == 1  # what MLflow did not get while it was down


def test_a_worse_index_is_kept_back_and_why_is_told_once(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    go(update, living)
    gate["passes"] = lambda models: False
    put(living, "a/9.png", png(9))
    (living.root / "images" / "a" / "2.png").unlink()
    state = go(update, living)
    assert (state.name, state.message) == ("Rejected", "candidate 2 is kept back: because")
    asked = {"artifacts": {"key": {"any_": ["rejected"]}}, "sort": "CREATED_DESC"}
    page = prefect_server.ask("/artifacts/filter", asked)[0]["data"]
    assert (
        "1 new, 0 changed, 1 gone" in page
        and "Searches still find the images that are gone." in page
    )
    go(build, living)
    until(lambda: told(prefect_server, events.REJECTED, living.root), "no event")
    (payload,) = told(prefect_server, events.REJECTED, living.root)
    assert (payload["why"], payload["figures"]) == ("because", {"queries": 3})
    assert (payload["new"], payload["gone"]) == (1, 1)
    gate["passes"] = lambda models: True
    put(living, "a/10.png", png(10))
    assert "2 new" in go(update, living).message  # since it was served


HELD = Holder(flow="build", run="someone", process=1)


def test_an_update_during_a_build_is_dropped_on_purpose_and_asked_for_again(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    with lock.hold(living.root, HELD, on_wait=None):
        state = go(update, living)
        assert state.is_cancelled() and state.name == "Dropped"
        assert "the build of process 1 (flow run someone)" in state.message and living.ran() == []
        assert lock.take_request(living.root)
        go(update, living)
    assert lock.take_request(living.root)


def test_of_two_updates_at_once_one_is_dropped_and_another_is_asked_for(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    slow = f"import time; time.sleep(8)\n{WORK}"
    (living.root / "work.py").write_text(slow)
    states = []
    both = [
        threading.Thread(target=lambda: states.append(go(update, living).name)) for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(120)
    assert sorted(states) == ["Dropped", "Released"]
    assert living.ran() == ["index"] and len(gate["asked"]) == 1
    until(lambda: told(prefect_server, events.CHANGED, living.root), "no other update asked for")


def test_a_build_waits_for_whoever_has_the_project(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    with lock.hold(living.root, HELD, on_wait=None):
        waiting = threading.Thread(target=go, args=[build, living])
        waiting.start()
        time.sleep(3)
        assert living.ran() == [] and waiting.is_alive()
    waiting.join(120)
    assert living.ran() == ["index"]


def drift(toy: Toy, new: int, revision: int) -> None:
    exceeded = [{"name": "unseen_labels", "value": 0.5, "threshold": 0.1}]
    verdict = {"drifted": True, "exceeded": exceeded, "new": new, "revision": revision}
    write_json(toy.root / "data" / "drift" / "verdict.json", verdict)


def has_drifted(toy: Toy, png: Callable[[int], bytes]) -> None:
    """Publishes twice, then forty images are new at the second revision, or so it is said."""
    go(update, toy)
    put(toy, "b/1.png", png(50))
    go(update, toy)
    drift(toy, 40, 2)


def test_drift_is_told_with_its_figures(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    drift(living, 40, 2)
    go(update, living)
    until(lambda: told(prefect_server, events.DRIFTED, living.root), "no event")
    (payload,) = told(prefect_server, events.DRIFTED, living.root)
    assert payload["exceeded"][0]["name"] == "unseen_labels" and payload["new"] == 40
    asked = {"artifacts": {"key": {"any_": ["drift"]}}, "sort": "CREATED_DESC"}
    page = prefect_server.ask("/artifacts/filter", asked)[0]["data"]
    assert "40 new images at revision 2: unseen_labels 0.5 (allowed: 0.1)" in page
    assert "A retrain was requested." in page


def test_a_retrain_that_would_be_of_no_use_is_not_asked_for(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    drift(living, 40, 1)
    go(update, living)
    asked = {"artifacts": {"key": {"any_": ["drift"]}}, "sort": "CREATED_DESC"}
    until(lambda: prefect_server.ask("/artifacts/filter", asked), "no page")
    page = prefect_server.ask("/artifacts/filter", asked)[0]["data"]
    assert "No retrain: the training covers revision 1 already." in page
    assert told(prefect_server, events.DRIFTED, living.root) == []


def test_a_retrain_that_is_worse_is_taken_back_and_a_better_one_is_served(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    go(update, living)
    put(living, "b/1.png", png(50))
    go(update, living)
    before = (living.root / "training.yaml").read_text()
    drift(living, 40, 2)
    living.ran()
    gate["passes"] = lambda models: models == "trained on revision 1"
    state = go(retrain, living)
    assert state.name == "Released" and "release 2" in state.message  # that from before
    assert gate["asked"][-2:] == ["trained on revision 2", "trained on revision 1"]
    assert living.ran() == ["index"]  # the models from before came from DVC's cache
    assert (living.root / "training.yaml").read_text() == before
    assert len(told(prefect_server, events.REJECTED, living.root)) == 1
    assert told(prefect_server, events.DRIFTED, living.root) == []  # it was tried: not in a loop
    assert go(retrain, living).name == "Unneeded"
    put(living, "b/2.png", png(51))
    assert "release 3" in go(update, living).message

    gate["passes"] = lambda models: True
    drift(living, 80, 3)  # twice as many, so it is tried again
    assert "release 4" in go(retrain, living).message
    assert gate["asked"][-1] == "trained on revision 3"
    assert go(retrain, living).message == "the training covers revision 3 already"


def test_a_retrain_that_was_cut_short_is_judged_by_the_next_update(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    has_drifted(living, png)
    (living.root / "work.py").write_text("raise SystemExit('cut short')")
    assert go(retrain, living).is_failed()
    (living.root / "work.py").write_text(WORK)
    gate["passes"] = lambda models: models == "trained on revision 1"
    assert go(update, living).name == "Released"
    assert gate["asked"][-2:] == ["trained on revision 2", "trained on revision 1"]


def test_a_retrain_that_was_cancelled_once_it_had_trained_is_not_published(
    prefect_server: PrefectServer, living: Toy, gate: dict, png, monkeypatch
) -> None:
    has_drifted(living, png)

    def cut(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(release, "decide", cut)
        with pytest.raises(KeyboardInterrupt):
            go(retrain, living)
    assert training_revision.end(living.root, released=False)  # as the hook of a cancelled run does
    go(update, living)
    assert "trained on revision 2" not in gate["asked"]
    assert (living.root / "data" / "index" / "models").read_text() == "trained on revision 1"
    assert go(update, living).name == "Unchanged"


def test_a_retrain_that_was_turned_down_is_taken_back_though_nobody_could_be_told(
    prefect_server: PrefectServer, living: Toy, gate: dict, png, monkeypatch
) -> None:
    has_drifted(living, png)
    gate["passes"] = lambda models: models == "trained on revision 1"

    def unheard(*arguments: Any, **named: Any) -> None:
        raise events.EventError("the server is down")

    with monkeypatch.context() as patch:
        patch.setattr(events, "emit", unheard)
        assert go(retrain, living).is_failed()
    assert go(update, living).name == "Released"
    assert gate["asked"][-2:] == ["trained on revision 2", "trained on revision 1"]


def test_a_retrain_that_keeps_failing_is_given_up_and_new_images_are_published_again(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    has_drifted(living, png)
    before = (living.root / "training.yaml").read_text()
    fails_for_it = "if trained == 2:\n    raise SystemExit('out of memory')\n"
    (living.root / "work.py").write_text(WORK + fails_for_it)
    assert "out of memory" in go(retrain, living).message
    (living.root / "images").rename(living.root / "elsewhere")
    assert go(update, living).is_failed()  # the source is away: no fault of the retrain's
    (living.root / "elsewhere").rename(living.root / "images")
    put(living, "b/2.png", png(51))
    assert all("out of memory" in go(update, living).message for _ in range(2))
    assert (living.root / "training.yaml").read_text() == before
    assert go(update, living).name == "Released"
    assert gate["asked"][-1] == "trained on revision 1"
    assert go(retrain, living).message.startswith("a retrain up to revision 2, with 40 new images")


def test_an_update_that_was_dropped_is_asked_for_though_the_holder_fails(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    (living.root / "work.py").write_text(
        "import pathlib; pathlib.Path('.cache/flows/asked').touch(); raise SystemExit('no')"
    )
    assert go(update, living).is_failed()
    until(lambda: told(prefect_server, events.CHANGED, living.root), "no other update asked for")
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
    until(lambda: len(told(prefect_server, events.UPDATED, living.root)) == 3, "not all told")
