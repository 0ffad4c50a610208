"""A service that is killed again and again.

Run as a program it reads roots of projects, a line each, and forks for each a service that answers
until it is killed; before anything of torch has run, so that a fork is safe and costs next to
nothing. It prints the service's process number and port, then that it ended.
"""

import os
import sys
from pathlib import Path


def serve(root: Path) -> None:
    """Answer over a project at a free port."""
    from irgen.serve import launch

    with launch.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        print(os.getpid(), port, flush=True)
        settings = launch.Settings(
            root=root,
            folder=None,
            url=f"http://127.0.0.1:{port}",
            is_local=True,
            tokens=root / "tokens.json",
            fetch_hosts=None,
            processes=1,
            decoders=1,
            batch=32,
            rate=None,
            read_only=False,
            log_requests=False,
        )
        launch.run(settings, listener)


def main() -> None:
    """Fork services as the lines tell."""
    import irgen.releases.own_index
    import irgen.serve.app
    import irgen.serve.fetch
    import irgen.serve.service  # noqa: F401 – once, for all services

    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            serve(Path(line.rstrip("\n")))
            os._exit(1)
        _, status = os.waitpid(process, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
