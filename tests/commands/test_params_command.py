"""``irgen params`` lists every setting with the value in use."""

import shutil
from pathlib import Path

import pytest

from irgen.commands import cli
from irgen.params.reference import list_settings


@pytest.fixture
def home(tmp_path: Path, root: Path) -> Path:
    shutil.copyfile(root / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def test_all_settings_are_listed_with_the_values_in_use(home, capsys):
    path = home / "params.yaml"
    path.write_text(path.read_text().replace("beams: 20", "beams: 77"))
    assert cli.main(["params", "--root", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == [setting.name for setting in list_settings()]
    (beams,) = (line for line in lines if line.startswith("evaluate.beams"))
    assert beams.split()[1] == "77" and "integer, 1 to 100000" in beams


def test_one_section_can_be_listed_and_another_is_refused(home, capsys):
    assert cli.main(["params", "gate", "--root", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines and all(line.startswith("gate.") for line in lines)
    assert cli.main(["params", "gates", "--root", str(home)]) == 2
    assert "there is no section 'gates'" in capsys.readouterr().err
