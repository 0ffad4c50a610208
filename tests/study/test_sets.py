"""Settings of the compared sets are what `irgen init` writes for their sources, to the letter."""

import shutil
from pathlib import Path

import pytest

from irgen.commands import cli
from irgen.study.plan import PLAN, load_plan, settings_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", load_plan(ROOT).sets)
def test_the_settings_of_a_set_are_those_that_init_chooses(
    name: str, root: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = settings_file(root, name)
    project = tmp_path / "project"
    (tmp_path / "shared").symlink_to(shared)
    (project / PLAN.parent).mkdir(parents=True)
    shutil.copyfile(root / "params.yaml", project / "params.yaml")
    own = shutil.copyfile(committed, project / PLAN.parent / committed.name)
    monkeypatch.chdir(project)
    assert cli.main(["presets", name]) == 0
    renew = "presets have changed; write the settings anew: irgen presets"
    assert own.read_text() == committed.read_text(), renew
