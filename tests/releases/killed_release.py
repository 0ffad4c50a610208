"""Releases that are killed: reads lines of ``module name when root`` and forks for each a release
in the project ``root`` that kills itself before or after that function; prints how it ended.

What a release imports is imported once, before any of it has run, so that a fork is safe.
"""

import os
import signal
import sys
from importlib import import_module

MODULES = (
    "irgen.commands.cli",
    "irgen.commands.release",
    "irgen.releases.promote",
    "irgen.releases.registry",
    "irgen.tracking.served",
)
MODULES += ("irgen.checkpoints.models", "pandas", "mlflow.models", "mlflow.store.tracking")


def release(module: str, name: str, when: str, root: str) -> None:
    """Does not come back, but with an exit status that is none if it was not killed."""
    owner = import_module(module)
    real = getattr(owner, name)

    def killing(*arguments, **options):
        if when == "after":
            real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killing)
    os.dup2(sys.stderr.fileno(), 1)
    os._exit(import_module("irgen.commands.cli").main(["release", "--root", root]))


def main() -> None:
    """Fork a release for each request."""
    for module in MODULES:
        import_module(module)
    print("ready", flush=True)
    for line in sys.stdin:
        module, name, when, root = line.rstrip("\n").split(" ", 3)
        process = os.fork()
        if not process:
            release(module, name, when, root)
        _, status = os.waitpid(process, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
