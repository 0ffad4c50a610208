"""Drift and the flow ``retrain``, with a real Prefect server and a real source."""

from collections.abc import Callable
from typing import Any

import pytest

from flows import events, release, training_revision
from flows.retrain import retrain
from flows.update import update
from irgen.files.records import write_json

from ..conftest import PrefectServer, Toy, until
from .conftest import WORK, put, read_events, run_flow

pytestmark = pytest.mark.slow


def drift(toy: Toy, new: int, revision: int) -> None:
    exceeded = [{"name": "unseen_labels", "value": 0.5, "threshold": 0.1}]
    verdict = {"drifted": True, "exceeded": exceeded, "new": new, "revision": revision}
    write_json(toy.root / "data" / "drift" / "verdict.json", verdict)


def has_drifted(toy: Toy, png: Callable[[int], bytes]) -> None:
    """Release twice, and write a drift verdict on forty new images of the second revision."""
    run_flow(update, toy)
    put(toy, "b/1.png", png(50))
    run_flow(update, toy)
    drift(toy, 40, 2)


def test_drift_is_told_with_its_figures(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    drift(living, 40, 2)
    run_flow(update, living)
    until(lambda: read_events(prefect_server, events.DRIFTED, living.root), "no event")
    (payload,) = read_events(prefect_server, events.DRIFTED, living.root)
    assert payload["exceeded"][0]["name"] == "unseen_labels" and payload["new"] == 40
    asked = {"artifacts": {"key": {"any_": ["drift"]}}, "sort": "CREATED_DESC"}
    page = prefect_server.ask("/artifacts/filter", asked)[0]["data"]
    assert "40 new images at revision 2: unseen_labels 0.5 (allowed: 0.1)" in page
    assert "A retrain was requested." in page


def test_a_retrain_that_would_be_of_no_use_is_not_asked_for(
    prefect_server: PrefectServer, living: Toy, gate: dict
) -> None:
    drift(living, 40, 1)
    run_flow(update, living)
    asked = {"artifacts": {"key": {"any_": ["drift"]}}, "sort": "CREATED_DESC"}
    until(lambda: prefect_server.ask("/artifacts/filter", asked), "no page")
    page = prefect_server.ask("/artifacts/filter", asked)[0]["data"]
    assert "No retrain: the training covers revision 1 already." in page
    assert read_events(prefect_server, events.DRIFTED, living.root) == []


def test_a_retrain_that_is_worse_is_taken_back_and_a_better_one_is_served(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    run_flow(update, living)
    put(living, "b/1.png", png(50))
    run_flow(update, living)
    before = (living.root / "training.yaml").read_text()
    drift(living, 40, 2)
    living.ran()
    gate["passes"] = lambda models: models == "trained on revision 1"
    state = run_flow(retrain, living)
    assert state.name == "Released" and "release 2" in state.message  # that from before
    assert gate["asked"][-2:] == ["trained on revision 2", "trained on revision 1"]
    assert living.ran() == ["index"]  # the models from before came from DVC's cache
    assert (living.root / "training.yaml").read_text() == before
    assert len(read_events(prefect_server, events.REJECTED, living.root)) == 1
    # it was tried: not in a loop
    assert read_events(prefect_server, events.DRIFTED, living.root) == []
    assert run_flow(retrain, living).name == "Unneeded"
    put(living, "b/2.png", png(51))
    assert "release 3" in run_flow(update, living).message

    gate["passes"] = lambda models: True
    drift(living, 80, 3)  # twice as many, so it is tried again
    assert "release 4" in run_flow(retrain, living).message
    assert gate["asked"][-1] == "trained on revision 3"
    assert run_flow(retrain, living).message == "the training covers revision 3 already"


def test_a_retrain_that_was_cut_short_is_judged_by_the_next_update(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    has_drifted(living, png)
    (living.root / "work.py").write_text("raise SystemExit('cut short')")
    assert run_flow(retrain, living).is_failed()
    (living.root / "work.py").write_text(WORK)
    gate["passes"] = lambda models: models == "trained on revision 1"
    assert run_flow(update, living).name == "Released"
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
            run_flow(retrain, living)
    assert training_revision.end(living.root, released=False)  # as the hook of a cancelled run does
    run_flow(update, living)
    assert "trained on revision 2" not in gate["asked"]
    assert (living.root / "data" / "index" / "models").read_text() == "trained on revision 1"
    assert run_flow(update, living).name == "Unchanged"


def test_a_retrain_that_was_turned_down_is_taken_back_though_nobody_could_be_told(
    prefect_server: PrefectServer, living: Toy, gate: dict, png, monkeypatch
) -> None:
    has_drifted(living, png)
    gate["passes"] = lambda models: models == "trained on revision 1"

    def unheard(*arguments: Any, **named: Any) -> None:
        raise events.EventError("the server is down")

    with monkeypatch.context() as patch:
        patch.setattr(events, "emit", unheard)
        assert run_flow(retrain, living).is_failed()
    assert run_flow(update, living).name == "Released"
    assert gate["asked"][-2:] == ["trained on revision 2", "trained on revision 1"]


def test_a_retrain_that_keeps_failing_is_given_up_and_new_images_are_published_again(
    prefect_server: PrefectServer, living: Toy, gate: dict, png: Callable[[int], bytes]
) -> None:
    has_drifted(living, png)
    before = (living.root / "training.yaml").read_text()
    fails_for_it = "if trained == 2:\n    raise SystemExit('out of memory')\n"
    (living.root / "work.py").write_text(WORK + fails_for_it)
    assert "out of memory" in run_flow(retrain, living).message
    (living.root / "images").rename(living.root / "elsewhere")
    assert run_flow(update, living).is_failed()  # the source is away: no fault of the retrain's
    (living.root / "elsewhere").rename(living.root / "images")
    put(living, "b/2.png", png(51))
    assert all("out of memory" in run_flow(update, living).message for _ in range(2))
    assert (living.root / "training.yaml").read_text() == before
    assert run_flow(update, living).name == "Released"
    assert gate["asked"][-1] == "trained on revision 1"
    assert run_flow(retrain, living).message.startswith(
        "a retrain up to revision 2, with 40 new images"
    )
