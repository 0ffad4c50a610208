"""``irgen ui``: MLflow's pages over this project's runs."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import click

from irgen.commands.options import root_option
from irgen.errors import TrackingError

PORT = 5000
SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@click.command()
@root_option
@click.option(
    "--port", type=int, default=PORT, help=f"Default: {PORT}, or a free port if it is taken."
)
def ui(root: Path, port: int) -> None:
    """Serve MLflow's pages of this project's runs until Ctrl-C. If a server tracks the runs, print
    its address instead."""
    from irgen.tracking import locations, mlflow_store, sync

    with suppress(TrackingError):
        sync.sync_all(root)  # what was killed is not shown as running
    if locations.tracking_uri(root).startswith("http"):
        print(f"Runs are tracked at {mlflow_store.format_uri(root)}/{mlflow_store.ALL_EXPERIMENTS}")
        return
    port = port if is_free(port) else find_free_port()
    print(f"MLflow: http://127.0.0.1:{port}/{mlflow_store.ALL_EXPERIMENTS}")
    print("Ctrl-C ends it", flush=True)
    command = mlflow_store.ui_command(root, port)
    (locations.find_project(root) / "mlruns").mkdir(exist_ok=True)
    os.execve(command[0], command, os.environ | SETTINGS)


def is_free(port: int) -> bool:
    """Tell whether a server can listen on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
