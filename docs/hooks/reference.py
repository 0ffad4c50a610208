"""Pages that mkdocs generates: commands and parameters from the code, tables from the results, and
the notebook as a page."""

import json
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "tutorial/notebook.ipynb"
NOTEBOOK_NOTE = """
!!! note
    This page is the notebook [notebook.ipynb](notebook.ipynb). The picture shows what two of its
    cells print for the digits.

![An index, and the hits of a drawn four](../assets/notebook.png)
"""
INCLUDE = re.compile(r"^<!-- include: (\S+) -->$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {"commands": describe_commands(), "parameters": describe_parameters()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    text = describe_notebook((ROOT / "docs" / NOTEBOOK).read_text())
    files.append(File.generated(config, "tutorial/from-python.md", content=text))
    return files


def describe_notebook(text: str) -> str:
    """Return the cells of a notebook as Markdown, with a note below its title."""
    first, *others = json.loads(text)["cells"]
    parts = ["".join(first["source"]), NOTEBOOK_NOTE]
    for cell in others:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace ``<!-- include: PATH -->`` by the text of a file below the project's root."""
    return INCLUDE.sub(lambda match: include((ROOT / match[1]).read_text()), markdown)


def include(text: str) -> str:
    """Return Markdown that fits below a heading of a page: without its title and its links to
    files, its headings from the third level down.

    >>> include("# Title\\n\\n## Speed\\n\\n[all](a.svg)")
    '### Speed\\n\\nall'
    """
    text = re.sub(r"\A# .*\n+", "", text)
    highest = min(map(len, re.findall(r"^(#+) ", text, flags=re.MULTILINE)), default=3)
    deeper = "#" * (3 - highest)
    text = re.sub(r"^(#+ )", rf"{deeper}\1", text, flags=re.MULTILINE)
    text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", text)


def describe_commands() -> str:
    """Return the page of all commands, from the command line's own help."""
    from irgen.commands.cli import irgen as cli

    context = click.Context(cli, info_name="irgen")
    parts = ["# Commands\n\nGenerated from `irgen --help`.\n"]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command is None or command.hidden:
            continue
        own = click.Context(command, info_name=f"irgen {name}")
        parts.append(f"## irgen {name}\n\n```text\n{command.get_help(own)}\n```\n")
    return "\n".join(parts)


def describe_parameters() -> str:
    """Return the page of all parameters, from the settings classes."""
    from irgen.params.reference import list_settings

    parts = [
        "# Parameters\n\nEvery key that `params.yaml` may set. A key left out has its default.\n"
    ]
    section = ""
    for setting in list_settings():
        name, _, key = setting.name.partition(".")
        if name != section and key:
            section = name
            parts.append(f"\n## {name}\n\n| key | default | allowed | meaning |\n|---|---|---|---|")
        elif not key:
            parts.append("\n| key | default | allowed | meaning |\n|---|---|---|---|")
        cells = (f"`{key or name}`", f"`{setting.default}`", setting.allowed, setting.description)
        parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"
