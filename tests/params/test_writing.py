"""A preset is written into params.yaml: comments and order stay, and no user's setting is lost."""

from pathlib import Path

import pytest
import yaml

from irgen.params import load
from irgen.params.presets import Collection, Pretrained, digits, drawings, photos, without_labels
from irgen.params.writing import apply_values, list_edits

SOME = Collection(images=400, trained=288, labels=10, side=224, channels=3)
ENCODER = Pretrained(name="resnet18", weights="hub", image_size=224, crop=0.95)
SOURCE = {"download": {"source": "../photos"}}


@pytest.fixture
def text(root: Path) -> str:
    return (root / "params.yaml").read_text()


@pytest.fixture
def path(tmp_path: Path, text: str) -> Path:
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path / "params.yaml"


def test_values_are_set_and_comments_and_blank_lines_stay(path, text):
    path.write_text(apply_values(text, [photos(SOME, ENCODER), SOURCE], "../photos"))
    params = load(path)
    assert params.download.source == "../photos"
    assert params.encoder.name == "resnet18" and params.encoder.channels == 3
    assert params.tokenizer.codebook == 32 and params.tokenizer.hidden == 512
    written = path.read_text()
    assert written.startswith("# Written by: irgen init ../photos (")
    comments = [line.partition(" # ")[2] for line in text.splitlines() if " # " in line]
    assert len(comments) > 20 and all(comment in written for comment in comments)
    lines = written.splitlines()[1:]
    tops = [n for n, line in enumerate(lines) if line[:1].isalpha()]
    assert [lines[n].split(":")[0] for n in tops] == list(yaml.safe_load(text))
    blank = [
        not text.splitlines()[n - 1]
        for n, line in enumerate(text.splitlines())
        if line[:1].isalpha()
    ]
    assert [not lines[n - 1] for n in tops] == blank


def test_another_preset_leaves_nothing_of_the_one_before(path, text):
    straight = apply_values(text, [drawings(SOME), SOURCE], "x")
    around = apply_values(text, [photos(SOME, ENCODER), without_labels(SOME), SOURCE], "../photos")
    path.write_text(straight)
    expected = load(path)
    path.write_text(apply_values(around, [drawings(SOME), SOURCE], "x"))
    assert load(path) == expected
    default = apply_values(around, [digits(), {"download": {"source": "digits"}}], "digits")
    before = path.with_name("before.yaml")
    before.write_text(text)
    path.write_text(default)
    assert load(path) == load(before)


def test_settings_that_no_preset_sets_stay(path, text):
    own = text.replace('remote: ""', "remote: s3://mine/releases")
    path.write_text(apply_values(own, [photos(SOME, ENCODER), SOURCE], "../photos"))
    assert load(path).release.remote == "s3://mine/releases"


def test_the_default_file_and_one_of_irgen_init_have_nothing_to_lose(path, text):
    assert list_edits(path) == []
    path.write_text(apply_values(text, [photos(SOME, ENCODER), SOURCE], "../photos"))
    assert list_edits(path) == []


def test_what_a_user_changed_is_named(path, text):
    path.write_text(text.replace("layers: 3", "layers: 6"))
    assert list_edits(path) == ["retriever.layers: 6"]
    written = apply_values(text, [photos(SOME, ENCODER), SOURCE], "../photos")
    path.write_text(written.replace("layers: 1", "layers: 6"))
    assert "retriever.layers: 6" in list_edits(path)
