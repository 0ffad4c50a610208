"""A real MLflow server on loopback."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from . import server_program


class MlflowServer:
    """A real MLflow server on loopback that a test may start, kill and start again."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.port = server_program.find_free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        shutil.copyfile(database, folder / "mlflow.db")

    def start(self) -> None:
        """Start the server and return when it answers; fail after a minute."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = server_program.start(command, self.folder / "log", os.environ | settings)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.1)
        pytest.fail(f"the MLflow server did not start: {(self.folder / 'log').read_text()}")

    def kill(self) -> None:
        """Kill the server and its workers, as a power cut would."""
        if self.process is not None:
            server_program.kill(self.process)
            self.process = None
