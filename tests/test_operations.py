"""The operations page says what is so: its commands, messages, variables, units and containers."""

import ast
import functools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from irgen import cli

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text()
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
README = (ROOT / "README.md").read_text()
LIVING = README.split("## A living database\n")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = sorted(
    {
        line
        for block in BLOCKS
        for text in block.splitlines()
        if (line := re.sub(r"\s+# .*", "", text).strip())
    }
)
PREFECT_STATES = {"Failed", "Crashed", "Late"}
FIRST = sorted(re.findall(r"^(?:prefect|irgen|make) .*?(?=  +#|$)", LIVING, flags=re.MULTILINE))
OTHERS = {"git", "cp", "systemctl", "export", "docker", "du", "sqlite3", "pg_dump", "make"}
OTHERS |= {"install", "sudo", "useradd"}
OTHERS |= {"cd", "set", "source"}  # the shell's own


def check(program: str, arguments: list[str]) -> None:
    """Fails unless the program, one of ours or of our packages, takes these arguments."""
    name = Path(program).name
    if name == "prefect":
        check_prefect(arguments)
    elif name == "mlflow":
        check_mlflow(arguments)
    elif name == "dvc":
        from dvc.cli.parser import get_main_parser

        get_main_parser().parse_args(arguments)
    elif name == "irgen":
        top = click.Context(cli.irgen, info_name="irgen")
        command, rest = cli.irgen.resolve_command(top, arguments)[1:]
        assert command is not None
        command.make_context(arguments[0], rest, parent=top)
    elif name == "python":
        assert arguments[0] == "-m" and (ROOT / f"{arguments[1].replace('.', '/')}.py").exists()
    else:
        assert name in OTHERS, f"nothing is known of {program}"


def check_prefect(arguments: list[str]) -> None:
    from prefect.cli._app import _app

    words = [word for word in arguments if word != "--no-prompt"]
    _app.parse_args(words, exit_on_error=False, print_error=False)


def check_mlflow(arguments: list[str]) -> None:
    import click
    from mlflow.cli import cli as group

    command = group.commands[arguments[0]]
    command.make_context(arguments[0], arguments[1:], parent=click.Context(group))


@pytest.mark.parametrize("command", [*COMMANDS, *FIRST])
def test_a_command_of_the_page_or_of_the_first_steps_exists(command: str) -> None:
    program, *arguments = shlex.split(command)
    check(program, arguments)
    for name in re.findall(r"\b((?:deploy|docs|flows)/[\w./*-]+)", command):
        assert list(ROOT.glob(name)) or name == "deploy/.env", f"there is no {name}"


@functools.cache
def texts() -> str:
    """Every text in the code, what is filled in replaced by …, a line each."""
    found = []
    for path in [*(ROOT / "flows").glob("*.py"), *(ROOT / "irgen").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found).replace("%s", "…")


def alerts() -> list[str]:
    """What the first column of the page's table of alerts quotes."""
    table = PAGE.split("## What to do")[1].split("###")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")][2:]
    return sorted({quoted for cell in cells for quoted in re.findall(r"`([^`]+)`", cell)})


@pytest.mark.parametrize("alert", alerts())
def test_what_the_page_says_is_told_is_what_the_code_tells(alert: str) -> None:
    assert alert in texts() or alert in PREFECT_STATES


def test_every_event_and_state_of_the_flows_is_on_the_page() -> None:
    quoted = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))
    told = set(re.findall(r'= "(irgen\.[\w.]+)"', (ROOT / "flows" / "events.py").read_text()))
    assert len(told) >= 4
    for path in (ROOT / "flows").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Completed", "Cancelled"):
                named = [each.value for each in node.keywords if each.arg == "name"]
                told |= {str(each.value) for each in named if isinstance(each, ast.Constant)}
    assert {"Released", "Rejected", "Unchanged", "Dropped"} <= told
    assert told <= quoted, told - quoted


def documented() -> set[str]:
    """The variables of the page's table."""
    table = PAGE.split("### The environment")[1].split("##")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")][2:]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_variable_of_units_and_containers_is_on_the_page() -> None:
    example = (DEPLOY / "irgen.env.example").read_text()
    used = set(re.findall(r"^#?([A-Z_]+)=", example, flags=re.MULTILINE))
    for unit in UNITS:
        for line in re.findall(r"^Environment=(.*)$", unit.read_text(), flags=re.MULTILINE):
            used |= set(re.findall(r"([A-Z_]+)=", line))
    used |= set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    for service in COMPOSE["services"].values():
        used |= service.get("environment", {}).keys()
    assert used <= documented(), used - documented()
    assert documented() <= used | {"PREFECT_HOME"}, documented() - used


def test_no_file_holds_a_password() -> None:
    secret = re.compile(r"(\w*(?:PASSWORD|SECRET|KEY|WEBHOOK)\w*)[=:] *(.*)")
    for path in [*UNITS, DEPLOY / "compose.yaml", DEPLOY / "irgen.env.example"]:
        for name, value in secret.findall(path.read_text()):
            assert not value or value.startswith("${"), f"{path.name}: {name}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_is_sound_and_starts_what_exists(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text().replace("/srv/irgen", str(ROOT))
    (command,) = re.findall(r"^ExecStart=(.*)$", text, flags=re.MULTILINE)
    program, *arguments = shlex.split(command)
    assert (Path(sys.prefix) / "bin" / Path(program).name).exists()
    check(program, arguments)
    if shutil.which("systemd-analyze") is None or not Path(program).exists():
        return
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^User=.*$", "User=root", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert unit.name not in done.stderr, done.stderr


def commands(service: dict[str, Any]) -> list[str]:
    return shlex.split(service["command"]) if "command" in service else []


def test_the_containers_start_what_exists_and_find_each_other() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        if service.get("image") == "irgen":
            built = service.get("build", {}).get("dockerfile")
            assert built == "deploy/Dockerfile" or "prefect" in service["depends_on"], name
            program, *arguments = commands(service)
            check(program, arguments)
        for needed in service.get("depends_on", {}):
            assert "healthcheck" in services[needed], f"{name} waits for {needed} in vain"
        for host in re.findall(r"//(?:\w+:[^@]+@)?([a-z]+):\d+", yaml.safe_dump(service)):
            assert host in services, f"{name}: nobody is called {host}"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = source in COMPOSE["volumes"]
            if known and service.get("image") == "irgen":  # Docker would make it root's
                owned = f"--owner=irgen --group=irgen {volume.split(':')[1]}\n"
                assert owned in (DEPLOY / "Dockerfile").read_text(), volume
            assert known or (DEPLOY / source).exists(), f"{name}: {volume}"
    # Python's folder is root's, and Prefect has no pages if it cannot write them somewhere
    assert (
        services["prefect"]["environment"]["PREFECT_SERVER_UI_STATIC_DIRECTORY"]
        == "/tmp/prefect-ui"
    )
    pool = yaml.safe_load((ROOT / "prefect.yaml").read_text())["definitions"]["pool"]["name"]
    assert f"--pool {pool} " in services["worker"]["command"]


def test_the_image_has_the_pinned_packages() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "-c constraints.txt" in text
    pinned = (ROOT / "constraints.txt").read_text().lower()
    for name, version in re.findall(r"([\w-]+)==([\w.]+)", text):
        ours = re.search(rf"^{name}==(.*)$", pinned, flags=re.MULTILINE)
        assert ours is None or ours[1] == version, f"{name} is pinned to {ours and ours[1]}"
    for copied in re.findall(r"^COPY (.*) \S+$", text, flags=re.MULTILINE):
        for source in copied.split():
            assert (ROOT / source).exists(), source
