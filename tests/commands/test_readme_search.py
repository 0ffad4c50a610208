"""The section on searching in the README: its commands run in order, then its Python."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

NAMES = [f"{label}/{number:04d}.png" for label in (3, 9) for number in (29, 105, 1042, 1230)]


@pytest.fixture(scope="module")
def section(root: Path) -> str:
    return (root / "README.md").read_text().split("\n## Search\n")[1].split("\n## ")[0]


@pytest.fixture
def project(another, png: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose images are called as in the README."""
    another(tmp_path / "data" / "index", range(len(NAMES)), names=NAMES)
    (tmp_path / "nine.png").write_bytes(png(50))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def block(section: str, kind: str) -> str:
    """The one block of that kind that has no ``$`` before its commands."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", section, flags=re.DOTALL)
    return found


def commands(section: str) -> list[list[str]]:
    return [shlex.split(line, comments=True)[1:] for line in block(section, "bash").splitlines()]


def test_every_command_on_an_index_is_shown_and_runs(section, project, told):

    assert {name for name, *_ in commands(section)} >= {
        "search",
        "add",
        "remove",
        "info",
        "compact",
    }
    for command in commands(section):
        assert told(*command), command


def test_the_output_shown_has_the_columns_that_are_printed(section, project, told):
    shown = block(section, "text").splitlines()
    prompt, command = shown[0].split(" irgen ")
    assert prompt == "$" and shlex.split(command) in commands(section)
    assert told(*shlex.split(command)).splitlines()[0].split() == shown[1].split()
    assert len(shown) == 3 + 4


def test_the_python_runs_and_finds_what_it_adds(section, project, told, capsys):
    told("add", "nine.png")
    told("remove", "nine.png")
    exec(block(section, "python"), {})
    printed = capsys.readouterr().out
    assert printed.startswith("['a nine' '9/")
    assert "9/1230.png" in printed


def test_every_figure_of_a_hit_is_explained(section):
    from irgen.commands import search_output

    for name in set(search_output.COLUMNS) - {"query", "rank", "id"}:
        assert re.search(rf"\b{name.replace('_', '[_ ]')}\b", section), name
