"""What a stage does not need, it does not wait for: imports take longer than the work of many."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("boto3", "matplotlib", "mlflow", "pandas", "scipy", "sklearn", "timm", "torch")
NEEDED = {  # at its start; where there is an image to encode, a knot to fit …, more comes later
    "download": set(),
    "catalog": set(),
    "features": {"torch"},
    "identifiers": {"torch"},
    "trie": {"torch"},
    "index": {"torch"},
    "evaluate": {"torch"},
    "drift": set(),
    "report": {"matplotlib"},
}


@pytest.mark.parametrize("stage", NEEDED)
def test_a_stage_starts_with_what_it_needs_alone(stage: str, root: Path) -> None:
    script = (
        f"import sys, irgen.commands.cli, irgen.tracking.recorder, irgen.stages.{stage}; "
        f"print(*(each for each in {HEAVY} if each in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= NEEDED[stage]


def test_a_release_of_what_was_asked_before_needs_no_network(root: Path) -> None:
    script = (
        "import sys, irgen.commands.release, irgen.evaluation.gate; "
        "print(*(each for each in ('mlflow', 'timm', 'torch') if each in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert not done.stdout.split()
