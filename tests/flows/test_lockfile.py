"""DVC writes the same lock file whichever parser reads the one before."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import _yaml

from .conftest import Toy

ODD = {
    "schema": "2.0",
    "stages": {
        "first": {
            "cmd": "python -m irgen first",
            "deps": [
                {"path": "data/a", "hash": "md5", "md5": 32 * "1", "size": 1},
                {"path": "data/b", "hash": "md5", "md5": "1e" + 30 * "0", "size": 0},
            ],
            "params": {
                "params.yaml": {
                    "floats": [3e-4, 1e-7, 1e20, 0.1 + 0.2, float("inf")],
                    "texts": ["yes", "", "1.0", "0o7", "null", "a: b", "# c", "ä", "x" * 200],
                    "others": [None, True, {}, [], {"a": [1]}],
                }
            },
        }
    },
}


def written(content: Any) -> str:
    stream = io.StringIO()
    _yaml._dump(content, stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["", "dvc.lock", "experiments/dvc.lock"])
def test_what_dvc_writes_does_not_depend_on_the_parser(root: Path, name: str) -> None:
    text = (root / name).read_text() if name else written(ODD)
    found = [written(parse(text, "")) for parse in (_yaml.parse_yaml, _yaml.parse_yaml_for_update)]
    assert found == [text, text]


def test_dvc_uses_it_for_its_lock_file_alone(toy: Toy) -> None:
    script = """
import flows.lockfile, sys
from dvc.utils.serialize import _yaml
from dvc.cli import main
class Seen(Exception): pass
def never(text, path):
    raise Seen(path)
flows.lockfile.keeping_comments = never
assert main(["repro", "first"]) == 0 and main(["commit", "-f", "first"]) == 0
try:
    with _yaml.modify_yaml("dvc.yaml"):
        raise AssertionError("its comments are lost")
except Seen as error:
    print("kept:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=toy.root, capture_output=True, text=True
    )
    assert done.returncode == 0 and "kept: dvc.yaml" in done.stdout, done.stderr
    assert (toy.root / "dvc.lock").read_text().startswith("schema: '2.0'\nstages:\n  first:\n")


@pytest.mark.parametrize("written", [b'"write"', b"sch"], ids=["rwlock", "dvc.lock"])
def test_a_dvc_that_is_killed_while_it_writes_leaves_nothing_that_stops_the_next(
    toy: Toy, written: bytes
) -> None:
    """Killed at the first bytes of what each file begins with; the next one goes on."""
    script = f"""
import os, signal, sys, flows.lockfile
from dvc import rwlock
from dvc.cli import main
from dvc.utils.serialize import _common
def dies(file):
    file.write({written.decode()!r}); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
if b"write" in {written!r}:
    rwlock.json.dump = lambda lock, file: dies(file)
else:
    dump = _common._dump_data
    _common._dump_data = lambda path, data, dumper, fs=None, **options: dump(
        path, data, lambda data, stream, **options: dies(stream), fs=fs, **options)
sys.exit(main(["repro", "first"]))
"""
    begun = [sys.executable, "-c", script]
    assert subprocess.run(begun, cwd=toy.root, capture_output=True).returncode == -9
    again = [sys.executable, "-m", "flows.lockfile", "repro", "first"]
    done = subprocess.run(again, cwd=toy.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "first:" in (toy.root / "dvc.lock").read_text()


def test_a_lock_file_that_is_not_written_to_its_end_stays_as_it_was(toy: Toy) -> None:
    script = """
import flows.lockfile
from dvc.utils.serialize import _common, _yaml
from pathlib import Path
def half(data, stream):
    stream.write("schema:")
    raise KeyboardInterrupt
Path("dvc.lock").write_text("schema: '2.0'\\n")
with _yaml.modify_yaml("dvc.lock") as data:
    data["stages"] = {}
assert Path("dvc.lock").read_text() == "schema: '2.0'\\nstages: {}\\n"
try:
    _common._dump_data("dvc.lock", {}, half)
except KeyboardInterrupt:
    print(Path("dvc.lock").read_text(), *Path().glob(".dvc.lock*"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=toy.root, capture_output=True, text=True
    )
    assert done.stdout.split() == ["schema:", "'2.0'", "stages:", "{}"], done.stderr
