"""Checks that a command line names a program that exists and arguments that it takes."""

import functools
import subprocess
from pathlib import Path

import click

from irgen.commands.cli import irgen as cli

ROOT = Path(__file__).resolve().parents[1]
SHELL = {"cd", "set", "source", "export", "sed", "curl", "install", "sudo", "useradd", "git", "cp"}
SHELL |= {"systemctl", "docker", "du", "sqlite3", "pg_dump", "kubectl", "ray", "pip"}


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
    elif program.startswith("MLFLOW_TRACKING_URI="):
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
    help_of_prefect(*names[:3])


@functools.cache
def help_of_prefect(*names: str) -> None:
    """Fail unless ``prefect`` has the command of these names."""
    command = ["prefect", *names, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
