"""README and docs say what is so: their commands, files, parameters and links exist."""

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from irgen import params
from irgen.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
FENCE = re.compile(r"```(?:bash|sh)\n(.*?)```", re.DOTALL)
SHELL = {"cd", "set", "source", "export", "sed", "curl", "install", "sudo", "useradd", "git", "cp"}
SHELL |= {"systemctl", "docker", "du", "sqlite3", "pg_dump", "MLFLOW_TRACKING_URI=http:"}


def commands() -> list[tuple[str, str]]:
    """Return (page, command line) of every line of a shell block, continued lines joined."""
    lines = []
    for page, text in TEXTS.items():
        for block in FENCE.findall(text):
            block = re.sub(r"\\\n\s*", " ", block)
            for line in re.sub(r'"\[\{.*?\}\]"', "DATA", block, flags=re.DOTALL).splitlines():
                if command := re.sub(r"\s+# .*", "", line).strip():
                    lines.append((page, command))
        inline = re.findall(r"`((?:make|irgen|dvc|prefect) [^`\n…<]+)`", text)
        lines += [(page, command) for command in inline]
    return sorted(set(lines))


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_of_the_docs_exists(page: str, command: str) -> None:
    check_command(shlex.split(command.partition(" | ")[0]))


def check_command(words: list[str]) -> None:
    """Fail unless the program exists and takes these arguments."""
    program, *arguments = words
    name = Path(program).name
    if name == "make":
        arguments = [a for a in arguments if not a.startswith(("-C", "/"))]
        command = ["make", "--dry-run", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    elif name == "irgen":
        check_irgen(arguments)
    elif name == "dvc":
        from dvc.cli.parser import get_main_parser

        get_main_parser().parse_args(arguments)
    elif name == "prefect":
        check_prefect(arguments)
    elif name == "mlflow":
        check_mlflow(arguments)
    elif name == "python":
        path = ROOT / f"{arguments[1].replace('.', '/')}.py" if arguments[0] == "-m" else None
        assert (path or ROOT / arguments[0]).exists(), arguments
    elif name.startswith("MLFLOW_TRACKING_URI"):
        check_command(arguments)
    else:
        assert name in SHELL, f"nothing is known of {program}"


def check_irgen(arguments: list[str]) -> None:
    """Fail unless ``irgen`` takes these arguments."""
    context = click.Context(cli, info_name="irgen")
    if arguments[0].startswith("-"):
        return
    command = cli.get_command(context, arguments[0])
    assert command is not None, f"there is no irgen {arguments[0]}"
    if arguments[1:]:
        command.make_context(arguments[0], arguments[1:], parent=context)


def check_mlflow(arguments: list[str]) -> None:
    """Fail unless ``mlflow`` takes these arguments."""
    from mlflow.cli import cli as group

    context, command = click.Context(group), group
    while isinstance(command, click.Group):
        name, *arguments = arguments
        context = click.Context(command, parent=context)
        command = command.commands[name]
    command.make_context(command.name, arguments, parent=context)


def check_prefect(arguments: list[str]) -> None:
    """Fail unless ``prefect`` has this command."""
    words = [word for word in arguments if word != "--no-prompt"]
    names = []
    for word in words:
        if word.startswith("-") or "/" in word or "." in word:
            break
        names.append(word)
    done = subprocess.run(
        ["prefect", *names[:3], "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", TEXTS)
def test_files_and_links_of_a_page_exist(page: str) -> None:
    text = TEXTS[page]
    named = re.findall(r"`((?:irgen|flows|tests|docs|deploy|experiments|benchmarks)/[\w./-]+)`", text)
    for name in named:
        known = ("experiments/tables/", "experiments/results")
        assert (ROOT / name).exists() or name.startswith(known), f"{page}: there is no {name}"
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        if not link.startswith(("http", "mailto")):
            target = (ROOT / page).parent / link
            generated = target.name in ("commands.md", "parameters.md")
            assert target.exists() or generated, f"{page}: there is no {link}"


@pytest.mark.parametrize("page", TEXTS)
def test_parameters_of_a_page_exist(page: str) -> None:
    sections = params.describe()
    for section, key in re.findall(r"`([a-z_]+)\.([a-z_]+)[^`]*`", TEXTS[page]):
        if section in sections and key not in ("py", "md", "yaml"):
            assert key in {row.key for row in sections[section]}, f"{page}: no {section}.{key}"


def test_the_readme_is_short_and_starts_with_a_search() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 150
    assert any("irgen search" in line for line in lines[:40])


@pytest.mark.parametrize("name", ["clothing-224", "omniglot-small"])
def test_the_readme_s_table_is_the_comparison_s(name: str) -> None:
    """Its figures are the means of ``experiments/tables``, to the last digit."""
    rows = {}
    text = (ROOT / "experiments" / "tables" / name / "comparison.md").read_text()
    methods = re.search(r"^\|  \| P@1.*?(?=^$)", text, flags=re.DOTALL | re.MULTILINE)
    assert methods is not None
    for line in methods[0].splitlines()[2:]:
        title, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[title] = [re.sub(r"\*\*|±.*(?=[▲▼])|±.*$", "", cell).split() for cell in cells]
    table = [line for line in TEXTS["README.md"].splitlines() if line.startswith("| ") and "0." in line]
    assert len(table) == 3
    offset = 0 if name == "clothing-224" else 4
    for line in table:
        title, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        for cell, column in zip(cells[offset : offset + 4], (0, 1, 3, 4), strict=True):
            assert cell.split() == rows[title][column], (name, title)
