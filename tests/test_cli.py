"""A user's mistake ends in one line and status 2; nothing is half-written."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from irgen.commands import cli, stage
from irgen.files.atomic import write_bytes
from irgen.files.records import write_json
from irgen.stages import trie as trie_stage

from . import small_disk


@pytest.fixture
def home(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project's folder with nothing but its parameters."""
    monkeypatch.setenv("IRGEN_BUILD", "test")
    shutil.copyfile(root / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def irgen(*arguments: str, root: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "irgen", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_stage_has_a_command_with_help_that_says_what_it_does(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = {path.stem for path in (root / "irgen" / "stages").glob("*.py")} - {"__init__"}
    assert set(cli.STAGES) == stages
    for name in stages:
        assert cli.main([name, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert cli.STAGES[name] in text and "--root" in text


def test_help_is_quick_because_it_loads_nothing_heavy(root: Path) -> None:
    script = (
        "import sys; from irgen.commands import cli\n"
        "cli.main(['--help'])\n"
        "for name in (*cli.COMMANDS, *cli.STAGES):\n"
        "    cli.main([name, '--help'])\n"
        "print({'mlflow', 'torch', 'polars'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_a_misspelt_parameter_ends_a_real_run_with_one_line_and_status_2(
    home: Path, root: Path
) -> None:
    text = (home / "params.yaml").read_text()
    (home / "params.yaml").write_text(text.replace("codebook:", "codebok:"))
    done = irgen("catalog", root=root, cwd=home)
    assert done.returncode == 2
    expected = "irgen catalog: params.yaml: tokenizer: unknown key 'codebok'"
    assert done.stderr.startswith(expected) and len(done.stderr.splitlines()) == 1
    assert [each.name for each in home.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("name", [name for name in cli.STAGES if name != "download"])
def test_a_stage_whose_input_is_missing_names_what_to_run(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "--root", str(home)]) == 2
    output = capsys.readouterr().err
    assert output.startswith(f"irgen {name}: ") and "dvc repro" in output
    assert len(output.splitlines()) == 1


def test_results_before_any_evaluation_say_so(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["results", "--root", str(home)]) == 2
    assert "run dvc repro first" in capsys.readouterr().err


def test_results_show_the_table_and_that_nothing_had_to_be_done(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {f"{name}/{k}": 0.5 for name in ("precision", "hit", "recall") for k in (1, 10, 20)}
    figures |= {"map/R": 0.25, "bytes_per_image": 12.0}
    metrics = {"generative": figures, "queries": {"count": 7, "without_positive": 0}}
    write_json(home / "data" / "evaluate" / "metrics.json", metrics)
    write_bytes(home / "reports" / "index.html", b"<html>")
    about = {"format": "cub200", "protocol": "standard", "says": "unseen classes"}
    write_json(home / "data" / "catalog" / "protocol.json", about)
    assert cli.main(["results", "--root", str(home)]) == 0
    output = capsys.readouterr().out
    assert "0.500" in output and "Nothing had to be done" in output
    assert "Protocol standard (cub200): unseen classes\n" in output
    assert f"Report: {home}/reports/index.html" in output


def test_results_need_no_settings(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"generative": {"precision/10": 0.5}, "queries": {"count": 7, "without_positive": 0}}
    write_json(home / "data" / "evaluate" / "metrics.json", metrics)
    write_bytes(home / "params.yaml", b"tokenizer: [")
    assert cli.main(["results", "--root", str(home)]) == 0
    printed = capsys.readouterr()
    assert "0.500" in printed.out and "Report:" not in printed.out
    assert (
        "the report does not show these results yet" in printed.err and "params.yaml" in printed.err
    )


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tokeniser"]) == 2
    assert "No such command 'tokeniser'" in capsys.readouterr().err


def test_an_interrupt_ends_with_130(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trie_stage, "run", interrupted)
    assert cli.main(["trie", "--root", str(home)]) == 130
    assert capsys.readouterr().err == "irgen trie: interrupted\n"


def test_a_mistake_of_ours_keeps_its_traceback(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("an invariant")

    monkeypatch.setattr(stage, "run_stage", broken)
    with pytest.raises(AssertionError):
        cli.main(["trie", "--root", str(home)])


def wrapped() -> Exception:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "a.bin")
        except OSError as error:
            raise RuntimeError("PytorchStreamWriter failed writing file") from error
    except RuntimeError as error:
        return error


FULL, DENIED, NO_LOCKS = "no space left", "this user may not use a.bin", "has no file locks"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (RuntimeError("Io(Os { code: 28, message: 'No space left on device' })"), FULL),
        (OSError("9840 requested and 2016 written"), FULL),  # numpy.save
        (sqlite3.OperationalError("database or disk is full"), FULL),
        (wrapped(), FULL),
        (OSError(errno.EACCES, "Permission denied", "a.bin"), DENIED),
        (OSError(errno.EROFS, "Read-only file system", "a.bin"), DENIED),
        (OSError(errno.ENOLCK, "No locks available"), NO_LOCKS),
    ],
)
def test_an_error_of_the_disk_is_known_in_every_wrapping(error: Exception, message: str) -> None:
    assert message in str(cli.describe_disk_error(error))


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "a socket"), ValueError("28")])
def test_another_error_is_none_of_the_disk(error: Exception) -> None:
    assert cli.describe_disk_error(error) is None


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.EMFILE, "Too many open files", "a"), "ulimit -n"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (MemoryError(), "the memory is full"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is full"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "the memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "the memory"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/a']"), "TMPDIR"),
    ],
)
def test_a_limit_of_the_machine_is_told_with_its_remedy(error: Exception, remedy: str) -> None:
    assert remedy in str(cli.describe_limit(error))
    assert cli.describe_limit(ValueError("anything else")) is None


def run_here(root: Path, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell with ``irgen`` in it."""
    line = line.replace("irgen", f"{sys.executable} -m irgen")
    return subprocess.run(
        ["bash", "-c", line],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_an_output_that_is_full_is_told_as_such(root: Path) -> None:
    done = run_here(root, "irgen params > /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("irgen params: the output cannot be written (No space left")
    assert done.stderr.count("\n") == 1


def test_a_terminal_that_lacks_a_character_gets_an_escape(root: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "COLUMNS": "20"}
    done = run_here(root, "irgen params", **ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2026" in done.stdout


def test_a_reader_that_leaves_ends_the_output_in_silence(root: Path) -> None:
    done = run_here(root, "irgen params | head -1; exit ${PIPESTATUS[0]}")
    assert done.returncode in (0, 141)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_a_limit_of_memory_is_one_message(root: Path, tmp_path: Path) -> None:
    line = f"ulimit -v 1500000; irgen search a.png --index {tmp_path} --root {root}"
    done = run_here(root, line)
    assert done.returncode == 2, done.stderr
    assert "the memory is full" in done.stderr.splitlines()[-1] or "not an index" in done.stderr


def test_a_python_without_the_packages_names_the_environment(root: Path) -> None:
    hide = "import sys; sys.modules['filelock'] = None"
    command = [
        sys.executable,
        "-c",
        f"{hide}; from irgen.commands import cli; sys.exit(cli.main(['trie']))",
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "has no package filelock: activate the project's environment" in done.stderr


def test_a_full_disk_is_one_message_and_leaves_nothing_half_written(
    tmp_path: Path, root: Path
) -> None:
    disk = tmp_path / "disk"
    with small_disk.mount(disk, "512k"):
        shutil.copyfile(root / "params.yaml", disk / "params.yaml")
        done = irgen("download", root=root, cwd=disk)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("irgen download:")]
        assert len(lines) == 1 and "no space left on the disk" in lines[0]
        left = [path for path in (disk / "data").rglob("*") if path.is_file()]
        assert not left, f"half-written: {left}"
