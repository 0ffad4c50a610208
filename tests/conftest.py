"""Fixtures that more than one test file needs."""

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from irgen import params
from irgen.commands.cli import SPIN_COUNT

from .bucket_server import BucketServer
from .mlflow_server import MlflowServer

if TYPE_CHECKING:
    import polars as pl

    from irgen.checkpoints.models import Models

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # before torch is loaded, as the commands do


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: one that came last would keep one process busy,
    and the other would wait."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def no_store_in_the_working_folder() -> Iterator[None]:
    """MLflow makes a store of its own where it is not told of one, and nobody is to find that."""
    before = Path("mlflow.db").exists()
    yield
    assert before or not Path("mlflow.db").exists(), "MLflow was used without the project's store"


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def run_benchmark() -> Callable[..., str]:
    """Run a script of ``benchmarks`` with arguments, and return its output."""

    def run(script: str, *arguments: object, timeout: float = 600) -> str:
        command = [sys.executable, f"benchmarks/{script}.py", *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data sets and weights beside the repository; skip without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the real data sets and weights are not on this machine")
    return folder


@pytest.fixture
def quiet_dvc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which DVC neither phones home nor touches the user's settings."""
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


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow SQLite file with its tables, to be copied: making them takes seconds."""
    from irgen.tracking import mlflow_store

    home = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow_store.connect(home).search_experiments()
    return home / "mlruns" / "mlflow.db"


@pytest.fixture
def mlflow_server(tmp_path: Path, empty_store: Path) -> Iterator[MlflowServer]:
    """Yield a server that is not started yet."""
    server = MlflowServer(tmp_path / "server", empty_store)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """Return a function that encodes a small grey PNG, a different one for each number."""

    def make(number: int) -> bytes:
        file = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (6, 5), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def tokenizer_settings() -> params.Tokenizer:
    """Return a tokenizer small enough for a test: M = 3, L = 8, D = 6."""
    return params.Tokenizer(
        levels=3,
        codebook=8,
        width=6,
        hidden=0,
        dropout=0.0,
        tune_encoder=False,
        steps=24,
        batch_size=16,
        learning_rate=0.01,
        encoder_learning_rate=0.0,
        layer_decay=1.0,
        weight_decay=0.0,
        warmup=0.25,
        validate_every=6,
        patience=20,
        label_smoothing=0.0,
        temperature=0.1,
        prefix_weight=1.0,
        residual_weight=1.0,
        kmeans_iterations=5,
        labels="given",
        clusters=4,
    )


@pytest.fixture(scope="session")
def retriever_settings() -> params.Retriever:
    """Return a retriever small enough for a test."""
    return params.Retriever(
        encoder="tokenizer",
        tune_encoder=False,
        width=16,
        layers=2,
        heads=2,
        dropout=0.1,
        steps=30,
        batch_size=16,
        learning_rate=0.003,
        encoder_learning_rate=0.0,
        layer_decay=1.0,
        weight_decay=0.01,
        warmup=0.2,
        label_smoothing=0.1,
        gradient_clip=1.0,
        ema_decay=0.9,
        validate_every=6,
        patience=5,
    )


@pytest.fixture(scope="session")
def tiny_sections(
    tokenizer_settings: params.Tokenizer, retriever_settings: params.Retriever
) -> tuple[params.Encoder, params.Tokenizer, params.Retriever]:
    """Return the settings of ``tiny_models``."""
    from .tiny import ENCODER  # torch: seconds that not every test need pay

    return ENCODER, tokenizer_settings, replace(retriever_settings, dropout=0.0)


@pytest.fixture(scope="session")
def tiny_models(tiny_sections: tuple) -> "Models":
    """Real networks, small and untrained: enough to tell images apart."""
    from .tiny import untrained

    return untrained(*tiny_sections)


@pytest.fixture(scope="session")
def make_index(tiny_models: "Models", tiny_sections: tuple) -> Callable[..., Path]:
    """Make an index of image files; every second image is marked as trained on:
    ``make_index(folder, contents, items, calibration, **config)``. ``ranking``: None ranks by
    cosine. ``networks``: models and their settings."""
    import torch

    from irgen.catalog.images.pixels import decode_images
    from irgen.checkpoints.calibration import CALIBRATION, save_calibration
    from irgen.checkpoints.models import save_models
    from irgen.checkpoints.ranking import RANKING, save_ranking
    from irgen.index.index import Index

    def make(
        folder: Path,
        contents: list[bytes],
        items: "pl.DataFrame",
        calibration: Any,
        *,
        ranking: Any = None,
        networks: "tuple[Models, tuple]" = (tiny_models, tiny_sections),
        **config: Any,
    ) -> Path:
        own, sections = networks
        pixels = decode_images(contents, own.decoding)
        embeddings = own.embed(torch.from_numpy(pixels))

        def write(models: Path) -> None:
            save_models(models, own, *sections)
            if calibration is not None:
                save_calibration(models / CALIBRATION, calibration)
            if ranking is not None:
                save_ranking(models / RANKING, ranking)

        Index.create(
            folder,
            models_writer=write,
            config=config or {"search": {"beams": 600, "candidates": 50, "fresh_beams": 600}},
            items=items,
            codebooks=own.tokenizer.codebooks,
            codes=own.tokenize(embeddings),
            embeddings=embeddings,
            trained=torch.arange(len(contents)) % 2 == 0,
        )
        return folder

    return make


@pytest.fixture(scope="session")
def captioned(
    tiny_models: "Models", tiny_sections: tuple, make_index: Callable, tmp_path_factory
) -> Path:
    """Make a project whose pictures have captions, with their files; the index in ``data/index``
    has a text encoder that was trained on these: see ``tests/captioned.py``."""
    from . import captioned as project
    from .small_index import CALIBRATION, RANKING

    root = tmp_path_factory.mktemp("captioned")
    project.write_pictures(root)
    make_index(
        root / "data" / "index",
        project.pictures(),
        project.items(),
        CALIBRATION,
        ranking=RANKING,
        networks=(project.teach_words(tiny_models), tiny_sections),
    )
    return root


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[BucketServer]:
    """One server for all tests; ``buckets`` empties it."""
    server = BucketServer()
    yield server
    server.server.shutdown()


@pytest.fixture
def buckets(bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    """Return an empty S3 server; set credentials for it, and shorten the pauses between retries."""
    from irgen.catalog.sources import remote

    settings = {
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "of-the-tests-and-nothing-else",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(remote, "LONGEST_PAUSE", 0.05)
    short = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 500))
    monkeypatch.setattr("botocore.endpoint.time", short)
    bucket_server.reset()
    return bucket_server


@pytest.fixture
def empty_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has fetched no weights yet."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))


@pytest.fixture
def hub(empty_hub_cache: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a hub on loopback with the weights of timm's ``test_vit``."""
    import timm
    import torch
    from safetensors.torch import save

    from .hub_server import Hub

    torch.manual_seed(3)
    server = Hub(save(timm.create_model("test_vit").state_dict()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(empty_hub_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not answer: nothing listens on this port."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
