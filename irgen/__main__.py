"""``python -m irgen``, the command the pipeline's stages are run with."""

import sys

from irgen.cli import main

if __name__ == "__main__":
    sys.exit(main())
