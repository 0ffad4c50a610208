"""Run the command line: ``python -m irgen``, by which the pipeline runs its stages."""

import sys

from irgen.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
