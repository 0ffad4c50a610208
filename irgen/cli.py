"""The command line: ``irgen <stage>``, ``results``, ``publish``, ``ui``, and the index's commands.

Mistakes a user can mend end in one line on stderr and exit status 2.
"""

import argparse
import errno
import math
import os
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from irgen import __version__
from irgen.commands import grammar
from irgen.errors import ArtifactError, IrgenError
from irgen.params import load
from irgen.tracking.run_log import locked
from irgen.workspace import Workspace

JOURNAL_DAYS = 14.0  # that a published journal is kept
GIVING_WAY = 10  # by as much the publisher is nicer than the stages that it tells of
STAGES = {
    "download": "sync the source: fetch what is new or changed, drop what is gone",
    "catalog": "check every image and sort images into roles, in one table a role",
    "features": "encode every image with the pretrained encoder, once in its life",
    "pairs": "find the pairs of like images the retriever learns from",
    "tokenizer": "train the semantic tokenizer: encoder and residual quantiser",
    "identifiers": "give every image its code and its tuned embedding",
    "trie": "build the prefix arrays over the database's codes",
    "retriever": "train the retriever: from an image to its neighbours' codes",
    "index": "make the index that is served: models, images and how sure a hit is",
    "evaluate": "compare every search method on the same queries",
    "baselines": "compare with what others use: approximate searches, CGD and IRT_R",
    "drift": "tell whether new images still are like those the models were trained on",
    "report": "write the page a person reads",
}
# What uses all cores, or the GPU. Two such stages on the same cores take three times as long as one
# after the other, and what is timed must have the machine to itself.
COMPUTING = (
    *("features", "pairs", "tokenizer", "identifiers", "retriever"),
    *("index", "evaluate", "baselines", "drift"),
)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 or what the command gives, 2 (a
    mistake to mend), 130 (interrupted), 141 (whoever read the output has gone)."""
    options = parser().parse_args(arguments)
    try:
        status = options.command(options)
        _flush()
    except IrgenError as error:
        return _complain(options.name, str(error))
    except KeyboardInterrupt:
        print(f"irgen {options.name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return 141  # as if by the signal
    except Exception as error:  # a full disk comes wrapped in what each library raises
        if not is_full_disk(error):
            raise
        return _complain(options.name, full_disk(error, options.root))
    return status or 0


def _complain(name: str, message: str) -> int:
    print(f"irgen {name}: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _flush() -> None:
    """Prints what is still waiting to be, as long as an error can be told."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _reader_has_gone() -> bool:
    """Whether stdout is a pipe that nobody reads; if so, what is still to be printed is dropped."""
    try:
        place = sys.stdout.fileno()
    except (AttributeError, OSError):  # there is none, or it is no file
        return False
    poll = select.poll()
    poll.register(place, 0)  # what is asked for without asking: an error, or nobody there
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), place)
    return True


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="irgen",
        description="Generative image retrieval: the index that is served, and the stages of the "
        "pipeline one by one. `dvc repro` runs those that need it, in order.",
    )
    top.add_argument("--version", action="version", version=f"irgen {__version__}")
    commands = top.add_subparsers(dest="name", metavar="command", required=True)
    grammar.add_to(commands)
    for name, line in STAGES.items():
        stage = commands.add_parser(name, help=line, description=_sentence(line))
        _add_places(stage)
        stage.set_defaults(command=run_stage)
    for name, line, command in [
        ("results", "print the methods table and the report's path", results),
        ("publish", "log to MLflow what could not be logged before", publish),
        ("ui", "serve MLflow's pages over this project's runs", ui),
    ]:
        other = commands.add_parser(name, help=line, description=_sentence(line))
        _add_places(other)
        other.set_defaults(command=command)
        if name == "publish":
            other.add_argument("--watch", type=float, help=argparse.SUPPRESS)
            other.add_argument("--build", help="the build that --stages is about")
            other.add_argument(
                "--stages",
                type=_outcomes,
                metavar="STAGE=OUTCOME,…",
                help="what its stages came to: ran, skipped or restored",
            )
        if name == "ui":
            other.add_argument("--port", type=int, default=5000, help="default: 5000 or a free one")
    return top


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--params", type=Path, help="the parameters' file (default: params.yaml in the root)"
    )
    command.add_argument(
        "--root", type=Path, default=Path(), help="the project's folder (default: this one)"
    )


def _sentence(line: str) -> str:
    return f"{line[0].upper()}{line[1:]}."


def run_stage(options: argparse.Namespace) -> None:
    """Runs one stage and records it. Raises IrgenError for what the user can mend."""
    from irgen.tracking.provenance import project
    from irgen.tracking.recorder import recorded

    params = load(options.params or options.root / "params.yaml")
    # an experiment in a folder of its own shares what its project has encoded
    workspace = replace(Workspace.at(options.root), cache=project(options.root) / ".cache")
    stage = import_module(f"irgen.stages.{options.name}")
    with (
        turn(options.name, options.root),
        recorded(options.name, params, workspace, options.root) as record,
    ):
        record.result(stage.run(params, workspace, record.log))


@contextmanager
def turn(stage: str, root: Path) -> Iterator[None]:
    """Waits until no other stage of the project in ``root`` computes, and tells so, if this one is
    one of COMPUTING; no other does while the block runs."""
    lock = Workspace.at(root).cache / "turn.lock"
    with ExitStack() as stack:
        if stage in COMPUTING and not stack.enter_context(locked(lock, seconds=0.0)):
            print(f"{stage} waits: another stage computes", flush=True)
            stack.enter_context(locked(lock, seconds=math.inf))
        yield


def results(options: argparse.Namespace) -> None:
    """Prints the methods table, what ran and the report's path; rewrites an old or missing one."""
    from irgen.catalog.datasets.protocols import in_words
    from irgen.files import read_json
    from irgen.report import comparison

    workspace = Workspace.at(options.root)
    path = workspace.stage("evaluate") / "metrics.json"
    if not path.exists():
        raise ArtifactError(f"{path} is missing: nothing has been evaluated; run dvc repro first")
    page = workspace.reports / "index.html"
    if not page.exists() or page.stat().st_mtime < path.stat().st_mtime:
        run_stage(argparse.Namespace(**vars(options) | {"name": "report"}))
    measured = comparison.read(path, workspace.reports / "latency.json")
    print(comparison.text(comparison.table(measured)), end="\n\n")
    about = workspace.stage("catalog") / "protocol.json"
    if about.exists():
        print(f"Protocol {in_words(read_json(about))}")
    if ran := what_ran(options.root):
        print(ran)
    print(f"Report: {page.resolve()}")


def what_ran(root: Path) -> str:
    """Which stages had something to do in the build named by ``IRGEN_BUILD``; empty without one."""
    build = os.environ.get("IRGEN_BUILD")
    if not build:
        return ""
    from irgen.tracking import run_log
    from irgen.tracking.provenance import journals

    place = journals(root) / run_log.plain(build)
    ran = {path.stem.partition("-")[0] for path in place.glob("*.jsonl")} & STAGES.keys()
    if not ran:
        return (
            "Nothing had to be done: the source, the code and the parameters are those of the last "
            "run. These are its results."
        )
    return f"Ran: {', '.join(name for name in STAGES if name in ran)}."


def publish(options: argparse.Namespace) -> None:
    """Logs to MLflow what is still only in the journals. Raises TrackingError if it cannot.

    ``irgen publish --build KEY --stages catalog=skipped,pairs=restored``: first completes the build
    (``IRGEN_BUILD`` of its stages) with the stages that did not run, so that its run in MLflow has
    every stage and every metric. With a server that is down this is kept for the next time.
    """
    from irgen.tracking import mlflow_store as tracked
    from irgen.tracking import run_log, sync
    from irgen.tracking.provenance import journals, project

    home = project(options.root)
    if options.watch is not None:
        os.nice(GIVING_WAY)
        sync.watch(home, options.watch)
        return
    if options.stages:
        from irgen.outcomes import complete_build

        params = load(options.params or options.root / "params.yaml")
        build = options.build or os.environ.get("IRGEN_BUILD") or "build"
        complete_build(options.root, params, build, dict(options.stages))
    count = sync.publish_all(home)
    run_log.forget(journals(home), days=JOURNAL_DAYS)
    print(f"Published {count} runs to {tracked.shown(home)}")
    if options.stages and (page := tracked.build_page(home, params.tracking.experiment, build)):
        print(page)


def _outcomes(text: str) -> list[tuple[str, str]]:
    """``a=ran,b=skipped`` as pairs.

    >>> _outcomes("catalog=skipped,pairs=restored")
    [('catalog', 'skipped'), ('pairs', 'restored')]
    """
    pairs = [each.strip().partition("=") for each in text.split(",") if each.strip()]
    if not all(outcome and stage in STAGES for stage, _, outcome in pairs):
        raise argparse.ArgumentTypeError(f"{text!r}: expected stage=ran|skipped|restored,…")
    return [(stage, outcome) for stage, _, outcome in pairs]


def ui(options: argparse.Namespace) -> None:
    """Becomes MLflow's server over the project's store, or names the server that is in use."""
    from irgen.tracking import mlflow_store as tracked
    from irgen.tracking.provenance import project, store

    home = project(options.root)
    if store(home).startswith("http"):
        print(f"Runs are tracked at {tracked.shown(home)}")
        return
    port = options.port if _is_free(options.port) else _free_port()
    print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    command = tracked.ui_command(home, port)
    (home / "mlruns").mkdir(exist_ok=True)
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.execve(command[0], command, os.environ | settings)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_full_disk(error: BaseException | None) -> bool:
    """Whether the error, or one it came from, is a disk (or quota) with no space left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        text = str(error)
        if "No space left" in text or "os error 28" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def full_disk(error: BaseException, root: Path) -> str:
    """What to tell of a full disk: what was being written, where, and the remedy."""
    name = getattr(error, "filename", None)
    what = f"writing {name}" if name else f"writing below {root.resolve()}"
    return (
        f"no space left on the disk while {what}; what was there before is untouched. Free some "
        "space (dvc gc --workspace drops old results; .cache/encodings and .cache/query_features "
        "can go) and run again"
    )
