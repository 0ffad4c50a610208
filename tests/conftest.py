"""Fixtures that more than one test file needs."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from irgen import params

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and weights beside the project; not everyone has it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the real data sets and weights are not on this machine")
    return folder


@pytest.fixture
def quiet_dvc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment in which DVC neither phones home nor touches the user's settings."""
    settings = {
        "DVC_NO_ANALYTICS": "1",
        "DVC_STUDIO_OFFLINE": "1",
        "DVC_SITE_CACHE_DIR": str(tmp_path / "dvc-site"),
        "DVC_GLOBAL_CONFIG_DIR": str(tmp_path / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(tmp_path / "dvc-system"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)


class MlflowServer:
    """A real MLflow server on loopback that a test may start, kill and start again."""

    def __init__(self, folder: Path, database: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        shutil.copyfile(database, folder / "mlflow.db")

    def start(self) -> None:
        """Returns when the server answers; fails after a minute."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.1)
        pytest.fail(f"the MLflow server did not start: {(self.folder / 'log').read_text()}")

    def kill(self) -> None:
        """Kills the server and its workers, as a power cut would."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow SQLite file with its tables made, to be copied: making them takes seconds."""
    from irgen import tracking

    home = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.connect(home).search_experiments()
    return home / "mlruns" / "mlflow.db"


@pytest.fixture
def mlflow_server(tmp_path: Path, empty_store: Path) -> Iterator[MlflowServer]:
    """A server that is not started yet."""
    server = MlflowServer(tmp_path / "server", empty_store)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """The bytes of a small grey PNG, another one for each number."""

    def make(number: int) -> bytes:
        file = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (6, 5), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    return make


@pytest.fixture
def tokenizer_settings() -> params.Tokenizer:
    """A tokenizer small enough for a test: M = 3, L = 8, D = 6."""
    return params.Tokenizer(
        levels=3,
        codebook=8,
        width=6,
        hidden=0,
        dropout=0.0,
        tune_encoder=False,
        epochs=4,
        batch_size=16,
        learning_rate=0.01,
        encoder_learning_rate=0.0,
        layer_decay=1.0,
        weight_decay=0.0,
        warmup_epochs=1,
        label_smoothing=0.0,
        temperature=0.1,
        prefix_weight=1.0,
        residual_weight=1.0,
        refit_epochs=1,
        kmeans_iterations=5,
    )


@pytest.fixture
def retriever_settings() -> params.Retriever:
    """A retriever small enough for a test."""
    return params.Retriever(
        encoder="tokenizer",
        tune_encoder=False,
        width=16,
        layers=2,
        heads=2,
        dropout=0.1,
        epochs=5,
        batch_size=16,
        learning_rate=0.003,
        encoder_learning_rate=0.0,
        layer_decay=1.0,
        weight_decay=0.01,
        warmup_epochs=1,
        label_smoothing=0.1,
        gradient_clip=1.0,
        ema_decay=0.9,
        validate_every=2,
        patience=5,
    )
