"""DVC runs again what depends on the encoder's weights when their file is replaced in place."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from irgen.checkpoints.weights import create_encoder

from ..tiny import ENCODER, picture

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, root: Path, quiet_dvc: dict[str, str]) -> Path:
    """Return a project of 24 pictures whose encoder has its weights from a file."""
    folder = tmp_path / "project"
    shutil.copytree(root / "irgen", folder / "irgen", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "training.yaml", ".gitignore", ".dvcignore"):
        shutil.copyfile(root / name, folder / name)
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["encoder"] |= {
        "name": ENCODER.name,
        "weights": "weights.safetensors",
        "image_size": ENCODER.image_size,
        "options": ENCODER.options,
    }
    tree["download"]["source"] = "photos"
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    for label in range(3):
        (folder / "photos" / str(label)).mkdir(parents=True)
        for number in range(8):
            path = folder / "photos" / str(label) / f"{number}.png"
            path.write_bytes(picture(label, number))
    write_weights(folder, seed=1)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def write_weights(folder: Path, seed: int) -> None:
    state = create_encoder(ENCODER, seed).backbone.state_dict()
    state["conv1.0.weight"] = state["conv1.0.weight"].repeat(1, 3, 1, 1)  # as for colour images
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "weights.tmp")
    (folder / "weights.tmp").replace(folder / "weights.safetensors")


def reproduce(folder: Path) -> list[str]:
    """Bring the features up to date; return the stages that ran."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "features"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("Running stage")]
    return [line.split("'")[1] for line in lines]


def test_weights_that_are_replaced_in_place_are_used(project: Path) -> None:
    features = project / "data" / "features" / "train" / "features.npy"
    assert reproduce(project) == ["download", "catalog", "features"]
    before = features.read_bytes()
    assert reproduce(project) == ["download"]
    write_weights(project, seed=2)
    assert reproduce(project) == ["download", "features"]
    assert features.read_bytes() != before
