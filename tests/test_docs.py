"""README and docs say what is so: their commands, files, parameters and links exist."""

import re
import shlex
from pathlib import Path

import pytest

from irgen.params.reference import list_settings

from .command_lines import check_command

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
FENCE = re.compile(r"```(?:bash|sh)\n(.*?)```", re.DOTALL)


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
    check_command(shlex.split(command.partition(" | ")[0].replace("VERSION", "7")))


@pytest.mark.parametrize("page", TEXTS)
def test_files_and_links_of_a_page_exist(page: str) -> None:
    text = TEXTS[page]
    named = re.findall(
        r"`((?:irgen|flows|tests|docs|deploy|experiments|benchmarks)/[\w./-]+)`", text
    )
    for name in named:
        made_later = ("experiments/tables/", "experiments/results", "deploy/.env")
        assert (ROOT / name).exists() or name.startswith(made_later), f"{page}: there is no {name}"
    for link in re.findall(
        r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.S)
    ):
        if not link.startswith(("http", "mailto")):
            target = (ROOT / page).parent / link
            generated = target.name in ("commands.md", "parameters.md")
            assert target.exists() or generated, f"{page}: there is no {link}"


@pytest.mark.parametrize("page", TEXTS)
def test_parameters_of_a_page_exist(page: str) -> None:
    names = {setting.name for setting in list_settings()}
    sections = {name.split(".")[0] for name in names}
    for section, key in re.findall(r"`([a-z_]+)\.([a-z0-9_]+)[^`]*`", TEXTS[page]):
        if section in sections and key not in ("py", "md", "yaml", "json"):
            assert f"{section}.{key}" in names, f"{page}: there is no {section}.{key}"


def test_the_readme_is_short_and_starts_with_a_search() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 150
    assert any("irgen search" in line for line in lines[:40])


SETS = {
    "clothes": "clothing-224",
    "birds": "cub50-open",
    "groceries": "grocery",
    "characters": "omniglot-small",
}


@pytest.mark.parametrize("name", SETS)
def test_the_readme_s_table_is_the_comparison_s(name: str) -> None:
    """Its figures are the means of ``experiments/tables``, to the last digit."""
    rows = {}
    text = (ROOT / "experiments" / "tables" / SETS[name] / "comparison.md").read_text()
    methods = re.search(r"^\| +\| +P@1.*?(?=^$)", text, flags=re.DOTALL | re.MULTILINE)
    assert methods is not None
    for line in methods[0].splitlines()[2:]:
        title, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[title] = [re.sub(r"\*\*|±.*(?=[▲▼])|±.*$", "", cell).split() for cell in cells]
    results = TEXTS["README.md"].split("\n## Results\n")[1]
    table = results.split(f"| {name} |")[1].splitlines()[:3]
    assert len(table) == 3
    for number, line in enumerate(table):
        title, *cells = [cell.strip() for cell in line.strip("|").split("|")][number > 0 :]
        for cell, column in zip(cells, (0, 1, 3, 4), strict=True):
            assert cell.split() == rows[title][column], (name, title)
