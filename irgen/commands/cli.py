"""Command line: ``irgen <command>``, and ``irgen <stage>`` for each stage of the pipeline.

A mistake that a user can mend ends in one line on stderr and exit status 2.
"""

import atexit
import errno
import gc
import io
import os
import re
import select
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TextIO

import click

from irgen import __version__
from irgen.commands.stage import STAGES, make_command
from irgen.errors import IrgenError, IrgenWarning, format_line

COMMANDS = {  # command "x" is the object x in commands/x.py, unless MODULES names another file
    "init": "Look at your images and write settings that suit them.",
    "search": "Find the images of the index most like some images.",
    "add": "Add images to the index, or replace some.",
    "remove": "Remove images from the index.",
    "refresh": "Bring the index up to date with the served release, and keep your changes.",
    "forget": "Delete images for good that the source does not have any more.",
    "info": "Describe the index, and verify its files.",
    "compact": "Rewrite the index without removed and replaced images.",
    "release": "Serve the pipeline's index, if it is good enough.",
    "releases": "List releases, or pull one from the bucket.",
    "rollback": "Serve an earlier release again.",
    "results": "Print the table of methods and the path of the report.",
    "params": "List all settings: value, what is allowed, meaning.",
    "compare": "Compare methods, identifiers and ablations over data sets and seeds.",
    "sync-runs": "Send run logs to MLflow that it does not have yet.",
    "serve": "Answer searches by browser and over HTTP.",
    "token": "Let a client of the service in, or out.",
    "ui": "Serve MLflow's pages over this project's runs.",
}
MODULES = dict.fromkeys(("presets", "source", "trial", "tables"), "trial")  # hidden
# How often an idle OpenMP thread looks for work before it sleeps. GNU OpenMP lets it look for
# milliseconds, which is time that another process on the same cores lacks: beside one busy process,
# on two cores, a forward pass of ViT-S took 9 s with 0 or 1,000 turns, 13 s with 10,000 and 25 s by
# default; many small layers 6, 10, 22 and 286 s. Alone no count was faster than 0.
SPIN_COUNT = "0"
# Objects that are made before Python looks for garbage among them. By default it looks after 700,
# which is a quarter of the time in which torch and timm are imported.
GARBAGE_OBJECTS = 100_000
# How libraries word a full disk: the C library, Rust, NumPy (it counts), SQLite.
FULL_DISK = re.compile(
    r"No space left|os error 28|\d+ requested and \d+ written|database or disk is full"
)
FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
LIMITS = {  # what errors of a limit say, and its remedy
    r"Too many open files|os error 24": "too many files are open: raise the limit (ulimit -n 4096)",
    r"File too large|os error 27": "a file is larger than allowed: raise the limit (ulimit -f)",
    r"No usable temporary directory": "no temporary folder can be written: set TMPDIR to one",
    r"can't start new thread": "too many threads run: raise the limit (ulimit -u)",
    r"MemoryError|[Cc]an(?:'|no)t allocate memory|out of memory|failed to map segment": "the "
    "memory is full: end other programs, raise the limit (ulimit -v), or lower compute.batch_size",
}


class Commands(click.Group):
    """Group of all commands; a command's module is imported when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of all commands that --help shows."""
        return [*COMMANDS, *STAGES]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command, or None if there is none of that name."""
        if name in STAGES:
            return make_command(name)
        if name not in COMMANDS and name not in MODULES:
            return None
        attribute = name.replace("-", "_")
        module = import_module(f"irgen.commands.{MODULES.get(name, attribute)}")
        return getattr(module, attribute)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line per command, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        with formatter.section("Stages of the pipeline (dvc repro runs those that need it)"):
            formatter.write_dl(list(STAGES.items()))


@click.command(
    cls=Commands, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="irgen", message="%(prog)s %(version)s")
def irgen() -> None:
    """Generative image retrieval: search an index and change it, release a new one, run the
    stages of the pipeline one by one."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 or the command's own, 2 (a mistake of the
    user), 130 (interrupted), 141 (nobody reads the output any more)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is loaded
    gc.set_threshold(GARBAGE_OBJECTS)
    atexit.register(gc.freeze)  # at its end Python would look for garbage among all modules: 1 s
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show becomes an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        with _plain_warnings(name), irgen.make_context("irgen", list(arguments)) as context:
            status = irgen.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()  # while an error can still be printed
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        usage = f" (irgen {name} --help)" if name else ""
        return _print_error(name, error.format_message() + usage)
    except IrgenError as error:
        return _print_error(name, str(error))
    except KeyboardInterrupt:
        print(f"irgen {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return 141  # as if by the signal
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("irgen"):
            raise
        return _print_error(
            name,
            f"{sys.executable} has no package {error.name}: activate the project's environment "
            "(source .venv/bin/activate), or install it first (make install)",
        )
    except Exception as error:
        describe = (_describe_output_error, describe_disk_error, describe_limit)
        message = next(filter(None, (function(error) for function in describe)), None)
        if message is None:
            raise
        return _print_error(name, message)
    return status or 0


@contextmanager
def _plain_warnings(name: str) -> Iterator[None]:
    """Print the project's own warnings as notes, without file and line."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def print_note(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, IrgenWarning):
                print(format_line(f"irgen {name}: {message}"), file=sys.stderr)
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = print_note
        yield


def _print_error(name: str, message: str) -> int:
    print(f"irgen {name}: {format_line(message)}", file=sys.stderr)
    return 2


def _reader_has_gone() -> bool:
    """Tell whether stdout is a pipe that nobody reads; if so, discard the rest of the output."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # there is none, or it is not a file
        return False
    poll = select.poll()
    poll.register(descriptor, 0)  # reports errors and hang-ups unasked
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return True


def _describe_output_error(error: Exception) -> str | None:
    """Describe an error of writing to stdout, and discard the rest of the output; None for any
    other error."""
    if not isinstance(error, OSError) or error.errno not in FULL or error.filename is not None:
        return None
    try:
        descriptor = sys.stdout.fileno()
        os.write(descriptor, b"\n")
    except (AttributeError, ValueError):  # there is none, or it is not a file
        return None
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        return (
            f"the output cannot be written ({error.strerror}): let stdout lead to a place with "
            "room; what the command changed is done"
        )
    return None


def describe_limit(error: BaseException | None) -> str | None:
    """Describe a limit of memory, files or threads that an error tells of, and the remedy; None for
    any other error."""
    for cause in _causes(error):
        text = f"{type(cause).__name__}: {cause}"
        for pattern, remedy in LIMITS.items():
            if re.search(pattern, text):
                return f"{remedy}, and run again; what was there before is untouched"
    return None


def describe_disk_error(error: BaseException | None) -> str | None:
    """Describe a full disk, a missing permission or a disk without locks, and the remedy; None for
    any other error."""
    for cause in _causes(error):
        number, path = getattr(cause, "errno", None), getattr(cause, "filename", None)
        if number in FULL or FULL_DISK.search(str(cause)):
            return (
                f"no space left on the disk while writing {path or f'below {Path.cwd()}'}; what "
                "was there before is untouched. Free some space (dvc gc --workspace drops old "
                "results; .cache/encodings and .cache/query_features can go) and run again"
            )
        if number in DENIED and path is not None:
            return (
                f"this user may not use {path} ({os.strerror(number)}): run as the user who owns "
                "the project, or correct the permissions; a disk mounted read-only can be searched "
                "and no more"
            )
        if number in NO_LOCKS:
            return (
                f"the disk of {Path.cwd()} has no file locks ({os.strerror(number)}): move the "
                "project to a local disk, or mount it with locks (NFS: local_lock=all)"
            )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it wraps. Libraries wrap errors of the system in their own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
