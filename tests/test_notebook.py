"""The notebook of the docs runs as it is, keeps no outputs, and is a page of the docs."""

import json
from pathlib import Path

import polars as pl
import pytest

from .small_index import CALIBRATION, NAMES

PATH = Path("docs") / "tutorial" / "notebook.ipynb"
SECONDS = 120  # a cell, under load


@pytest.mark.slow
def test_the_notebook_runs_and_shows_hits(tmp_path, root, png, make_index) -> None:
    reason = "the notebook's packages are not installed: make install"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    nbformat = pytest.importorskip("nbformat", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    (tmp_path / "params.yaml").touch()
    labels = [name.split("/")[0] for name in NAMES]
    items = pl.DataFrame({"id": NAMES, "label": labels})
    make_index(tmp_path / "data" / "index", [png(n) for n in range(40)], items, CALIBRATION)
    notebook = nbformat.read(root / PATH, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources=folder).execute()
    shown = [
        output["data"]["text/html"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]
    assert "40 images" in shown[0] and "8 hits" in shown[1] and "my four" in shown[-1]
    printed = notebook.cells[-3]["outputs"][-1]["text"]
    assert printed.startswith("40 images") and "my four" not in printed
    assert not (tmp_path / "notebook-index").exists()


def test_the_notebook_is_kept_without_outputs(root) -> None:
    cells = json.loads((root / PATH).read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 8
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
