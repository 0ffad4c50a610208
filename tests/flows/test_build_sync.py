"""What the flows hand to ``irgen sync-runs``, a real one."""

import logging

import pytest

from flows import build, stage

from .conftest import Toy

LOG = logging.getLogger("flow")


def test_stages_that_are_none_of_irgen_s_are_no_trouble(
    toy: Toy, caplog: pytest.LogCaptureFixture
) -> None:
    """A user's own stage, and the one of a file that ``dvc add`` was given."""
    outcomes = {"first": stage.RAN, "images.dvc": stage.SKIPPED}
    with caplog.at_level(logging.INFO):
        build.sync_outcomes(toy.root, "b", outcomes, LOG)
    assert "Synced 0 runs" in caplog.text
    assert "MLflow does not have everything yet" not in caplog.text


def test_those_that_are_irgen_s_are_told(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[list[str]] = []
    monkeypatch.setattr(
        build, "run_sync", lambda root, build, log, added: options.append(added) or ()
    )
    outcomes = {"catalog": stage.SKIPPED, "first": stage.RAN, "trie": stage.RESTORED}
    build.sync_outcomes(toy.root, "b", outcomes, LOG)
    assert options == [["--build", "b", "--stages", "catalog=skipped,trie=restored"]]
