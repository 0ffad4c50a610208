"""A small project of a few hundred real digits, all of whose stages ran."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from irgen.catalog.sources.arrays import list_digits
from irgen.commands.cli import STAGES
from irgen.files.workspace import Workspace
from irgen.params import Params, load

SMALL = {
    "compute": {"batch_size": 64},
    "encoder": {
        "name": "resnet10t",
        "options": {"channels": [16, 24, 32, 48], "stem_width": 16, "output_stride": 8},
    },
    "tokenizer": {
        "levels": 2,
        "codebook": 16,
        "width": 16,
        "steps": 112,
        "batch_size": 16,
        "validate_every": 14,
    },
    "retriever": {
        "width": 32,
        "layers": 1,
        "heads": 2,
        "steps": 168,
        "batch_size": 16,
        "validate_every": 28,
        "ema_decay": 0.8,
    },
    "evaluate": {"beams": 8, "candidates": 40},
    "report": {"gallery": 2},
}


def small_params(root: Path, project: Path, **changes: dict) -> Params:
    """Write and return small parameters in ``root``, whose source is a folder of 300 digits."""
    tree = yaml.safe_load((project / "params.yaml").read_text())
    for section, values in {**SMALL, **changes}.items():
        tree[section] |= values
    tree["download"]["source"] = str(root / "digits")
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    return load(root / "params.yaml")


def write_digits(folder: Path, per_label: int) -> None:
    """Write the first images of each digit to class folders."""
    for entry in list_digits().entries:
        label, name = entry.key.split("/")
        if len(list((folder / label).glob("*"))) < per_label:
            (folder / label).mkdir(parents=True, exist_ok=True)
            (folder / label / name).write_bytes(entry.read())


def run(params: Params, root: Path, *stages: str) -> dict[str, dict[str, float]]:
    by_stage = {}
    for stage in stages or [stage for stage in STAGES if stage != "baselines"]:
        module = import_module(f"irgen.stages.{stage}")
        by_stage[stage] = module.run(params, Workspace.at(root), lambda metrics, step: None)
    return by_stage


@pytest.fixture(scope="session")
def built(tmp_path_factory, root):
    """Return a project in which each stage ran once: (its folder, params, metrics by stage)."""
    folder = tmp_path_factory.mktemp("project")
    write_digits(folder / "digits", 30)
    params = small_params(folder, root)
    return folder, params, run(params, folder)


@pytest.fixture
def copy(built, tmp_path):
    """Return a copy of that project that a test may change."""
    folder, params, _ = built
    shutil.copytree(folder, tmp_path / "project")
    return tmp_path / "project", params


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# what new images bring about
AGAIN = ("catalog", "features", "identifiers", "trie", "index", "evaluate", "drift", "report")
