"""Commands and Python of the docs on searching and changing an index run as they stand."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

NAMES = [f"{label}/{number:04d}.png" for label in (3, 9) for number in (29, 105, 1042, 1230)]


PAGES = ("docs/tutorial/first-search.md", "docs/how-to/add-and-remove.md")


@pytest.fixture(scope="module")
def pages(root: Path) -> list[str]:
    """Return both pages."""
    return [(root / page).read_text() for page in PAGES]


@pytest.fixture
def project(
    make_other_index, png: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a project whose images have the names of the docs."""
    make_other_index(tmp_path / "data" / "index", range(len(NAMES)), names=NAMES)
    (tmp_path / "nine.png").write_bytes(png(50))
    folder = tmp_path / "photos" / "9"
    folder.mkdir(parents=True)
    (folder / "0029.png").write_bytes(png(51))
    (tmp_path / "table.csv").write_text("path,label\nphotos/9/0029.png,9\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(page: str) -> list[list[str]]:
    """Return the arguments of every line of a shell block that calls irgen."""
    lines = "".join(re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("irgen ")]


def test_every_command_of_the_pages_runs(pages, project, run_ok):
    named = {command[0] for page in pages for command in commands(page)}
    assert named >= {"search", "add", "remove", "refresh", "info", "compact"}
    for command in [command for page in pages for command in commands(page)]:
        assert run_ok(*command), command


def test_the_python_of_the_pages_runs(pages, project, run_ok, capsys):
    searching, changing = (re.findall(r"```python\n(.*?)```", page, re.DOTALL) for page in pages)
    assert searching and changing
    for code in searching:
        exec(code, {})
    assert "3/" in capsys.readouterr().out
    run_ok("add", "nine.png")
    run_ok("remove", "nine.png")
    for code in changing:
        exec(code, {})


def test_every_column_of_a_result_is_explained(root):
    from irgen.commands import search_output

    text = (root / "docs" / "reference" / "metrics.md").read_text()
    for name in set(search_output.COLUMNS) - {"query", "rank", "id"}:
        assert re.search(rf"\b{name.replace('_', '[_ ]')}\b", text), name
