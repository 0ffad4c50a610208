"""Settings of the compared sets are what `irgen init` writes for their sources, to the letter."""

import shutil
from pathlib import Path

import pytest

from irgen.commands import cli
from irgen.params import load
from irgen.study.plan import load_plan, settings_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", load_plan(ROOT).sets)
def test_the_settings_of_a_set_are_those_that_init_chooses(
    name: str, root: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = settings_file(root, name)
    params = load(committed)
    (tmp_path / "shared").symlink_to(shared)
    (tmp_path / "project").mkdir()
    shutil.copyfile(root / "params.yaml", tmp_path / "project" / "params.yaml")
    monkeypatch.chdir(tmp_path / "project")
    command = ["init", params.download.source, "--params", f"experiments/{name}.yaml"]
    if params.encoder.weights != "none":
        command += ["--weights", params.encoder.weights]
    assert cli.main(command) == 0
    written = (tmp_path / "project" / "experiments" / f"{name}.yaml").read_text()
    renew = f"irgen {' '.join(command)} --force"
    assert written == committed.read_text(), f"presets have changed; write it anew: {renew}"
