"""``python -m irgen``, the command the pipeline's stages are run with."""

import sys

from irgen import warm


def main() -> int:
    """The command's exit status; by a process that has the libraries loaded if there is one."""
    status = warm.run("irgen", sys.argv[1:])
    if status is None:
        from irgen.cli import main as cold  # takes longer than asking

        status = cold()
    return status


if __name__ == "__main__":
    sys.exit(main())
