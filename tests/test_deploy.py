"""Units, containers and the pages about them agree with the code: messages, states, variables."""

import ast
import functools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .command_lines import check_command

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "how-to"
MESSAGES = (DOCS / "messages.md").read_text()
SERVICE = (DOCS / "run-as-a-service.md").read_text()
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PREFECT_STATES = {"Failed", "Crashed", "Late"}
FOREIGN = {"NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
FOREIGN |= {"RequestTimeTooSkewed"}  # codes of S3


@functools.cache
def texts() -> str:
    """Every text in the code, what is filled in replaced by …, a line each."""
    strings = []
    for path in [*(ROOT / "flows").glob("*.py"), *(ROOT / "irgen").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                strings.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.append(node.value)
    return "\n".join(strings).replace("%s", "…")


def quoted_messages() -> list[str]:
    """Return what the first column of the tables of messages.md quotes."""
    cells = [line.split("|")[1] for line in MESSAGES.splitlines() if line.startswith("| ")]
    return sorted({quoted for cell in cells for quoted in re.findall(r"`([^`]+)`", cell)})


@pytest.mark.parametrize("message", quoted_messages())
def test_a_message_of_the_docs_is_one_of_the_code(message: str) -> None:
    assert message in texts() or message in PREFECT_STATES | FOREIGN


def test_every_event_and_state_of_the_flows_is_in_the_docs() -> None:
    quoted = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", MESSAGES, flags=re.DOTALL)))
    names = set(re.findall(r'= "(irgen\.[\w.]+)"', (ROOT / "flows" / "events.py").read_text()))
    assert len(names) >= 4
    for path in (ROOT / "flows").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Completed", "Cancelled"):
                values = [word.value for word in node.keywords if word.arg == "name"]
                names |= {str(value.value) for value in values if isinstance(value, ast.Constant)}
    assert {"Released", "Rejected", "Unchanged", "Dropped"} <= names
    assert names <= quoted, names - quoted


def documented() -> set[str]:
    """Return the variables of the table in run-as-a-service.md."""
    table = SERVICE.split("## The environment")[1].split("## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")][1:]
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
    check_command([program, *arguments])
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
            check_command([program, *arguments])
        for needed in service.get("depends_on", {}):
            assert "healthcheck" in services[needed], f"{name} waits for {needed} in vain"
        for host in re.findall(r"//(?:\w+:[^@]+@)?([a-z]+):\d+", yaml.safe_dump(service)):
            assert host in services, f"{name}: nobody is called {host}"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            is_named = source in COMPOSE["volumes"]
            if is_named and service.get("image") == "irgen":  # Docker would make it root's
                owned = f"--owner=irgen --group=irgen {volume.split(':')[1]}\n"
                assert owned in (DEPLOY / "Dockerfile").read_text(), volume
            assert is_named or (DEPLOY / source).exists(), f"{name}: {volume}"
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
