"""Commands run by a process that has their libraries loaded: as they would be by themselves."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows import process, warm
from irgen.warm import VARIABLE

from .conftest import alive, until

CLIENT = [sys.executable, "-I", "-S", str(Path(warm.__file__).parents[1] / "irgen" / "warm.py")]
TELLS = """
import json, os, sys
print(json.dumps({"warm": "colorsys" in sys.modules, "arguments": sys.argv[1:],
    "folder": os.getcwd(), "group": os.getpgrp(), "asked": os.environ.get("ASKED"),
    "path": sys.path[0], "socket": os.environ.get("IRGEN_WARM")}))
"""
WAITS = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("new").write_text(f"{os.getpid()} {child.pid}")
os.rename("new", "pids")
time.sleep(600)
"""
ENDS = """
import atexit, sys, tempfile, threading, time
class Slow:
    def __del__(self):
        print("taken down")
sys.modules["slow"] = Slow()
kept = tempfile.TemporaryDirectory(prefix="kept", dir=".")
atexit.register(print, "of the process")
def late():
    time.sleep(0.3)
    print("of a thread")
threading.Thread(target=late).start()
print("the end")
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are Linux's alone")


@contextmanager
def served(folder: Path, monkeypatch: pytest.MonkeyPatch, *libraries: str) -> Iterator[str]:
    """Warm processes in this one's session, with a module that nobody else has."""
    monkeypatch.delenv(VARIABLE, raising=False)
    asked = dict.fromkeys(("told", "dvc"), libraries or ("colorsys",))
    monkeypatch.setattr(warm, "LIBRARIES", asked)
    with warm.libraries(folder, {}):
        place = os.environ[VARIABLE]
        until(
            lambda: {each.name for each in Path(place).iterdir()} == asked.keys(),
            120,
            "nobody serves",
        )
        yield place


def module(folder: Path, text: str, name: str = "told") -> list[str]:
    """The command of a module in ``folder``, by whoever is warm."""
    (folder / f"{name}.py").write_text(text)
    return [*CLIENT, name]


def said(ended: process.Ended) -> dict:
    assert ended.status == 0, ended.lines
    return json.loads(ended.lines[-1])


def pids(folder: Path) -> list[int]:
    path = folder / "pids"
    until(path.exists, 20, "the command did not start")
    return [int(each) for each in path.read_text().split()]


def run(command: list[str], folder: Path, timeout: float = 30, **settings: str) -> process.Ended:
    return process.run(command, root=folder, tell=print, timeout=timeout, settings=settings)


def test_a_command_has_what_is_loaded_and_its_own_arguments_folder_and_environment(
    tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    command = module(tmp_path / "elsewhere", TELLS)
    with served(tmp_path, monkeypatch):
        found = said(run([*command, "a", "b c"], tmp_path / "elsewhere", ASKED="yes"))
    assert found["warm"] and found["arguments"] == ["a", "b c"] and found["asked"] == "yes"
    assert found["folder"] == found["path"] == str(tmp_path / "elsewhere")
    assert found["socket"] is None, "only DVC starts commands that are to be warm"


def test_a_block_within_a_block_has_what_that_has_not(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(warm, "LIBRARIES", {"dvc": ("colorsys",), "told": ("colorsys",)})
    command = module(tmp_path, TELLS)
    with warm.libraries(tmp_path, {}, "dvc"):
        place = Path(os.environ[VARIABLE])
        until((place / "dvc").exists, 120, "nobody serves")
        first = (place / "dvc").stat().st_ino
        with warm.libraries(tmp_path, {}):
            until((place / "told").exists, 120, "nobody serves")
            assert said(run(command, tmp_path))["warm"] and os.environ[VARIABLE] == str(place)
        assert not said(run(command, tmp_path))["warm"], "it goes with its block"
        assert (place / "dvc").stat().st_ino == first, "who serves already goes on"
    assert VARIABLE not in os.environ and not place.exists()


def test_a_command_is_one_of_the_group_of_who_asked(tmp_path: Path, monkeypatch) -> None:
    with served(tmp_path, monkeypatch):
        client = subprocess.Popen(
            module(tmp_path, TELLS), cwd=tmp_path, stdout=subprocess.PIPE, process_group=0
        )
        found = json.loads(client.communicate()[0])
    assert found["warm"] and found["group"] == client.pid


def test_a_session_of_its_own_has_a_command_that_starts_by_itself(
    tmp_path: Path, monkeypatch
) -> None:
    with served(tmp_path, monkeypatch):
        done = subprocess.run(
            module(tmp_path, TELLS), cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True
        )
    assert done.returncode == 0 and not json.loads(done.stdout)["warm"]


def test_lines_come_in_order_and_when_they_are_printed(tmp_path: Path, monkeypatch) -> None:
    text = "import sys, os, time\nfor i in range(3):\n    print(i); print(i, file=sys.stderr)\n"
    text += "os.system('echo last')"
    with served(tmp_path, monkeypatch):
        ended = run(module(tmp_path, text), tmp_path)
    assert sorted(ended.lines) == sorted([*"001122", "last"]) and ended.lines[-1] == "last"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("import sys; sys.exit(7)", 7),
        ("raise ValueError('no')", 1),
        ("raise SystemExit('why not')", 1),
        ("raise KeyboardInterrupt", 128 + signal.SIGINT),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import subprocess as s; raise SystemExit(s.run(['false']).returncode)", 1),
    ],
)
def test_the_status_is_the_commands(tmp_path: Path, monkeypatch, text: str, status: int) -> None:
    with served(tmp_path, monkeypatch):
        assert run(module(tmp_path, text), tmp_path).status == status


def test_a_fork_ends_at_once_after_all_that_is_to_be_done_at_an_end(
    tmp_path: Path, monkeypatch
) -> None:
    with served(tmp_path, monkeypatch):
        ended = run(module(tmp_path, ENDS), tmp_path)
    assert ended.lines == ("the end", "of a thread", "of the process")
    assert not list(tmp_path.glob("kept*")), "what a finalizer was to delete is there"


def test_a_timeout_ends_a_fork_and_what_it_started(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    with served(tmp_path, monkeypatch):
        assert run(module(tmp_path, WAITS), tmp_path, timeout=8).timed_out
        until(lambda: not any(map(alive, pids(tmp_path))), 5, "the group lives on")


def test_a_fork_ends_with_who_asked_for_it(tmp_path: Path, monkeypatch) -> None:
    with served(tmp_path, monkeypatch):
        client = subprocess.Popen(module(tmp_path, WAITS), cwd=tmp_path, process_group=0)
        fork, child = pids(tmp_path)
        client.kill()
        client.wait()
        until(lambda: not alive(fork), 5, "the fork lives on")
        os.kill(child, signal.SIGKILL)  # as of any command: its group is ended by who has it


def test_a_command_whose_warm_process_is_killed_fails_and_is_ended(
    tmp_path: Path, monkeypatch
) -> None:
    with served(tmp_path, monkeypatch) as place:
        client = subprocess.Popen(module(tmp_path, WAITS), cwd=tmp_path, process_group=0)
        fork, child = pids(tmp_path)
        listed = subprocess.run(["pgrep", "-f", place], capture_output=True, text=True).stdout
        for each in map(int, listed.split()):
            if each not in (fork, os.getpid()):
                os.kill(each, signal.SIGKILL)
        assert client.wait(10) == 137 and not alive(fork)
        os.kill(child, signal.SIGKILL)
        assert not said(run(module(tmp_path, TELLS), tmp_path))["warm"]


def test_if_the_asking_process_is_killed_nothing_lives_on(tmp_path: Path) -> None:
    command = module(tmp_path, WAITS)
    asking = f"""
import os, time
from pathlib import Path
from flows import process, warm
warm.LIBRARIES = {{"told": ("colorsys",)}}
root = Path({str(tmp_path)!r})
with warm.libraries(root, {{}}):
    while not os.listdir(os.environ["IRGEN_WARM"]):
        time.sleep(0.05)
    print(os.environ["IRGEN_WARM"], flush=True)
    process.run({command!r}, root=root, tell=print, timeout=600)
"""
    home = Path(warm.__file__).parents[1]
    settings = {name: each for name, each in os.environ.items() if name != VARIABLE}
    asker = subprocess.Popen(
        [sys.executable, "-c", asking],
        env=settings | {"PYTHONPATH": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert asker.stdout is not None
        place = asker.stdout.readline().strip()
        running = pids(tmp_path)
    finally:
        asker.kill()
        asker.communicate()
    until(lambda: not any(map(alive, running)), 5, "the command outlived who asked for it")
    until(lambda: subprocess.run(["pgrep", "-f", place]).returncode == 1, 5, "somebody serves on")


def test_libraries_that_would_be_loaded_otherwise_are_loaded_by_the_command(
    tmp_path: Path, monkeypatch
) -> None:
    with served(tmp_path, monkeypatch):
        assert not said(run(module(tmp_path, TELLS), tmp_path, OMP_NUM_THREADS="7"))["warm"]
        assert said(run(module(tmp_path, TELLS), tmp_path))["warm"]


@pytest.mark.parametrize("libraries", [("threaded",), ("threaded", "numpy"), ("numpy", "threaded")])
def test_a_library_that_starts_a_thread_is_not_served(
    tmp_path: Path, monkeypatch, libraries: tuple[str, ...]
) -> None:
    text = "import threading, time\nthreading.Thread(target=time.sleep, args=[60]).start()\n"
    (tmp_path / "threaded.py").write_text(text)
    monkeypatch.setattr(warm, "LIBRARIES", {"told": libraries})
    forks = warm.command(str(tmp_path), "told")
    with subprocess.Popen(forks, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        told = server.stderr.readline()
        server.kill()
    assert f"a thread was started by one of {', '.join(libraries)}" in told
    assert not (tmp_path / "told").exists()


@pytest.mark.parametrize("place", ["off", "/nowhere/warm"])
def test_without_a_warm_process_a_command_starts_by_itself(
    tmp_path: Path, monkeypatch, place: str
) -> None:
    monkeypatch.setenv(VARIABLE, place)
    with warm.libraries(tmp_path, {}):
        assert os.environ[VARIABLE] == place, "set by who wants none"
        assert not said(run(module(tmp_path, TELLS), tmp_path))["warm"]


def test_the_processors_time_of_a_fork_is_counted(tmp_path: Path, monkeypatch) -> None:
    text = "import time\nwhile time.process_time() < 1.5:\n    pass"
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    with served(tmp_path, monkeypatch):
        assert run(module(tmp_path, text), tmp_path).status == 0
    assert sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before > 1.4


def test_a_command_of_dvc_s_is_warm_too(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "setting.py").write_text("import os; os.environ['TORCH_OF_ITS_OWN'] = 'x'")
    (tmp_path / "told.py").write_text(TELLS)
    text = f"import subprocess; subprocess.run({[*CLIENT, 'told']!r}, check=True)"
    with served(tmp_path, monkeypatch, "colorsys", "setting"):
        found = said(run(module(tmp_path, text, "dvc"), tmp_path))
    assert found["warm"]


@pytest.mark.parametrize("name", warm.LIBRARIES)
def test_the_libraries_of_a_command_start_no_thread(tmp_path: Path, monkeypatch, name: str) -> None:
    libraries = warm.LIBRARIES[name]
    text = f"import sys; print(*({set(libraries)!r} - sys.modules.keys()))"
    with served(tmp_path, monkeypatch, *libraries):
        ended = run(module(tmp_path, text), tmp_path)
    assert ended.status == 0 and not ended.lines
