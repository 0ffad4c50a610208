"""The release as a command: its decision, and its failure."""

from pathlib import Path

import pytest

from flows import release
from irgen.errors import ReleaseError

# Stands for ``python -m irgen``, with a gate that decides by a file.
COMMAND = """
import json, os, pathlib, sys
print("judged")
if pathlib.Path("result").exists():
    print(json.dumps({"build": os.environ["IRGEN_BUILD"], "arguments": sys.argv[1:]}))
sys.exit(int(pathlib.Path("status").read_text()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "irgen").mkdir()
    (tmp_path / "irgen" / "__init__.py").touch()
    (tmp_path / "irgen" / "__main__.py").write_text(COMMAND)
    (tmp_path / "result").touch()
    return tmp_path


@pytest.mark.parametrize(("status", "released"), [("0", True), ("3", False)])
def test_the_exit_status_is_the_decision(project: Path, status: str, released: bool) -> None:
    (project / "status").write_text(status)
    lines: list[str] = []
    decision = release.run(project, build="build 7", log=lines.append)
    assert decision.released == released and lines == ["judged"]
    assert decision.outcome == {"build": "build 7", "arguments": ["release", "--json"]}


def test_a_release_that_fails_is_an_error_in_its_own_words(project: Path) -> None:
    (project / "status").write_text("1")
    (project / "result").unlink()
    with pytest.raises(ReleaseError, match="release failed: judged"):
        release.run(project, build="b", log=print)


def test_a_release_without_a_result_is_an_error(project: Path) -> None:
    (project / "status").write_text("0")
    (project / "result").unlink()
    with pytest.raises(ReleaseError, match="printed no result: judged"):
        release.run(project, build="b", log=print)
