"""The tutorial "A database that lives", typed as it stands by somebody who has just cloned it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .. import server_program
from .conftest import ROOT, PrefectServer, until

pytestmark = [pytest.mark.slow, pytest.mark.scenario]

QUICK = {
    "tokenizer": {"levels": 2, "codebook": 16, "width": 32, "steps": 120},
    "retriever": {"width": 16, "layers": 1, "heads": 2, "steps": 20},
    "evaluate": {"beams": 5, "candidates": 20},
    "report": {"gallery": 1, "confusions": 1},
    "gate": {"margin": 1.0, "minimum": 0.0},
    "compute": {"threads": 1, "device": "cpu"},
}
PATIENCE = 300.0  # seconds; a build takes a minute on a quiet machine


def typed() -> list[str]:
    """Return the commands of the page in order, without comments."""
    page = (ROOT / "docs" / "tutorial" / "living-database.md").read_text()
    commands, open_ = [], ""
    for block in re.findall(r"```bash\n(.*?)```", page, re.S):
        for line in block.splitlines():
            open_ += line if open_ else re.sub(r"\s+# .*", "", line)
            try:
                shlex.split(open_)
            except ValueError:  # a quotation that goes on
                open_ += "\n"
                continue
            if open_.endswith("\\"):
                open_ += "\n"
                continue
            commands.append(open_)
            open_ = ""
    assert not open_
    return commands


class Newcomer:
    """A clone in which commands are typed; what they print is kept."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root, self.environment = root, environment
        self.served: subprocess.Popen[bytes] | None = None
        self.log = root.parent / "served.log"

    def types(self, command: str) -> str:
        """Run a command to its end, and return its output."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{self.told()}"
        return done.stdout

    def leaves_running(self, command: str) -> None:
        line = ["bash", "-c", command]
        self.served = server_program.start(line, self.log, self.environment, self.root)

    def told(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def newcomer(
    tmp_path: Path, quiet_dvc: dict[str, str], prefect_server: PrefectServer, empty_store: Path
) -> Iterator[Newcomer]:
    """Make the project that `git clone` and `make install` leave, with parameters for a short
    training."""
    root = tmp_path / "irgen"
    ours = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(ours, cwd=ROOT, text=True).split():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    (root / ".venv").symlink_to(sys.prefix)
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(root / name, (0, 0))  # else make would install anew
    (root / "dvc.lock").unlink(missing_ok=True)
    settings = yaml.safe_load((root / "params.yaml").read_text())
    for section, values in QUICK.items():
        settings[section] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / "mlruns").mkdir()
    shutil.copyfile(empty_store, root / "mlruns" / "mlflow.db")
    path = f"{root}/.venv/bin:{os.environ['PATH']}"
    environment = quiet_dvc | {"PATH": path, "IRGEN_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    newcomer = Newcomer(root, environment)
    yield newcomer
    if newcomer.served is not None:
        server_program.end(newcomer.served)


def test_the_page_s_commands_do_what_it_says(newcomer: Newcomer) -> None:
    """But for the server: the tests have one, at another address."""
    commands = typed()
    assert commands[:3] == [
        "source .venv/bin/activate",
        "export PREFECT_API_URL=http://127.0.0.1:4200/api",
        "prefect server start --analytics-off",
    ]
    said = {}
    for command in commands[3:]:
        if command == "make serve-flows":
            newcomer.leaves_running(command)
            until(lambda: "are being served" in newcomer.told(), "not served", newcomer.told)
        else:
            said[command] = newcomer.types(command)
        if command.startswith("irgen search"):
            best = json.loads(newcomer.types(f"{command} --explain --json"))[0]["hits"][0]
        if "event emit" in command:
            until(
                lambda: "release 2 is served: 40 new, 0 changed, 0 gone" in newcomer.told(),
                "the new images were not published",
                newcomer.told,
            )

    def of(part: str) -> str:
        return next(text for command, text in said.items() if part in command)

    assert of("digits.py photos") == "1,797 images in photos\n"
    assert "Released" in of("build/build")
    for stage in ("pairs", "tokenizer", "retriever"):
        assert re.search(rf"{stage}: skipped", newcomer.told()), newcomer.told()
    assert re.search(r" 1  2/0012-moved\.png ", of("irgen search")), of("irgen search")
    assert best["id"] == "2/0012-moved.png"
    assert best["cosine"] == pytest.approx(1, abs=1e-3)  # it is the query itself
    assert best["score"] == best["same_label"] == 1
    assert re.search(r"→ +2  released", of("irgen releases"))
    assert "Release 1 is served now." in of("irgen rollback")
