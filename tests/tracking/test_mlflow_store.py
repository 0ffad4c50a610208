"""The store of a project's runs: its pages, and a library that does not load."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from irgen.commands.ui import ui
from irgen.errors import TrackingError
from irgen.params import Params
from irgen.tracking import (
    mlflow_store,
)


def test_a_run_s_page_is_where_a_browser_finds_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mlflow_store.run_page(home, "1", "ab") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example/")
    address = "mlflow.example/#/experiments/1/runs/ab?workflowType=machine_learning"
    assert mlflow_store.run_page(home, "1", "ab") == f"https://***@{address}"
    monkeypatch.setenv("IRGEN_MLFLOW_PAGES", "https://pages.example/mlflow/")
    page = mlflow_store.run_page(home, "1", "ab")
    assert page == f"https://pages.example/mlflow/{mlflow_store.run_link('1', 'ab')}"


def test_irgen_ui_names_the_page_for_training_of_the_server_that_tracks_the_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    result = CliRunner().invoke(ui, ["--root", str(home)])
    page = "http://mlflow.example/#/experiments?workflowType=machine_learning"
    assert result.output == f"Runs are tracked at {page}\n"


def test_a_library_of_the_store_s_that_does_not_load_is_an_error_of_tracking(
    home: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise ImportError(f"{name} does not fit")

    monkeypatch.setattr(mlflow_store, "import_module", broken)
    with pytest.raises(TrackingError, match="mlflow does not fit"):
        mlflow_store.connect(home)
