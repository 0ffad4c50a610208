"""A service that is killed again and again.

Run as a program it reads roots of projects, a line each, and forks for each ``irgen serve`` at a
free port, until it is killed; before anything of torch has run, so that a fork is safe and costs
next to nothing. It prints the service's process number, what that prints, and how it ended.
"""

import os
import sys


def main() -> None:
    """Fork services as the lines tell."""
    import irgen.releases.own_index
    import irgen.serve.access.fetch
    import irgen.serve.app
    import irgen.serve.service  # noqa: F401 – once, for all services
    from irgen.commands import cli

    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            print(os.getpid(), flush=True)
            root = line.rstrip("\n")
            os._exit(cli.main(["serve", "--port", "0", "--decoders", "1", "--root", root]))
        _, status = os.waitpid(process, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
