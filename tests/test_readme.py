"""Every command in the README exists."""

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from irgen import cli, params

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
RUN = re.compile(r"^## A living database$.*?(?=^## )", re.DOTALL | re.MULTILINE)
# What tests/flows/test_first_steps.py runs need not be looked at here.
BLOCKS = re.findall(r"```bash\n(.*?)```", RUN.sub("", TEXT), flags=re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
INLINE = [
    code for code in re.findall(r"`([^`\n]+)`", TEXT) if code.split()[0] in ("make", "irgen", "dvc")
]
COMMANDS = sorted(
    {line for line in [*LINES, *INLINE] if line and "<" not in line and line != "make"}
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_exists(command: str) -> None:
    program, *arguments = shlex.split(command)
    {"make": check_make, "irgen": check_irgen, "dvc": check_dvc}[program](arguments)


def check_make(arguments: list[str]) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def check_irgen(arguments: list[str]) -> None:
    if len(arguments) == 1:  # named in passing, without what it is about
        assert cli.main([*arguments, "--help"]) == 0
    else:
        assert parse_arguments(arguments) == arguments[0]


def parse_arguments(arguments: list[str]) -> str | None:
    """Parse a command's arguments without running it and return its name. Raise click's error for
    a mistake."""
    top = click.Context(cli.irgen, info_name="irgen")
    name, command, rest = cli.irgen.resolve_command(top, arguments)
    assert command is not None
    command.make_context(name, rest, parent=top)
    return name


def check_dvc(arguments: list[str]) -> None:
    from dvc.cli.parser import get_main_parser

    get_main_parser().parse_args(arguments)


def test_the_readme_names_every_stage_and_every_target_of_make() -> None:
    for stage in cli.STAGES:
        assert f"`irgen {stage}`" in TEXT
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in set(targets) - {"help"}:
        assert f"`make {target}`" in TEXT


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./-]+\.(?:yaml|py))`", TEXT))))
def test_a_file_the_readme_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_settings_of_a_source_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"`download\.(\w+)`", TEXT))
    fields = {field.name for field in dataclasses.fields(params.Download)}
    assert {"source", "endpoint", "sha256"} <= named <= fields


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (ROOT / "experiments/tables").iterdir())
)
def test_the_readme_s_tables_are_those_of_the_comparison(name: str) -> None:
    made = (ROOT / "experiments" / "tables" / name / "comparison.md").read_text()
    tables = re.findall(r"^\|  \|.*?(?=^$)", made, flags=re.DOTALL | re.MULTILINE)
    methods, identifiers = tables[:2]  # ablations follow
    assert methods in TEXT
    assert identifiers in TEXT
