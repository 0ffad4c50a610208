"""`irgen init` looks at images, writes settings that suit them, and says what it chose and why."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from irgen.commands import cli
from irgen.params import Params, load


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the committed settings, in which commands run."""
    (tmp_path / "project").mkdir()
    for name in ("params.yaml", "training.yaml"):
        shutil.copy(root / name, tmp_path / "project" / name)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "test_vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    return path


def image(number: int, side: int = 60, channels: int = 3) -> bytes:
    generator = np.random.default_rng(number)
    small = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.convert("RGB" if channels == 3 else "L").resize((side, side)).save(file, "PNG")
    return file.getvalue()


def drawing(number: int) -> bytes:
    pixels = np.full((80, 80), 255, np.uint8)
    pixels[20 + number % 9 : 24 + number % 9, 10:70] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(
    folder: Path, make=image, labels: tuple[str, ...] = ("cat", "dog"), each: int = 15
) -> Path:
    for number in range(each * len(labels)):
        path = folder / labels[number % len(labels)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(number))
    return folder


def settings(project: Path) -> Params:
    return load(project / "params.yaml")


def test_photos_get_a_pretrained_encoder_by_the_path_as_given(project, weights, capsys):
    write(project.parent / "photos")
    assert cli.main(["init", "../photos", "--weights", "../test_vit.safetensors"]) == 0
    params = settings(project)
    assert params.download.source == "../photos"
    assert params.encoder.name == "test_vit" and params.encoder.image_size == 160
    assert params.encoder.weights == "../test_vit.safetensors"
    assert params.tokenizer.labels == "given" and not params.tokenizer.tune_encoder
    output = capsys.readouterr().out
    for words in (
        "30 images",
        "2, 15 images each",
        "60×60 pixels, colour",
        "photos: a pretrained encoder",
        "test_vit, 160 pixels, weights from ../test_vit.safetensors",
        "of disk. A rough estimate",
    ):
        assert words in output, words
    assert output.splitlines()[-1] == "Next: make run"


def test_captions_are_checked_and_named_in_the_settings(project, weights, capsys):
    write(project.parent / "photos")
    captions = project.parent / "captions.csv"
    command = ["init", "../photos", "--weights", "../test_vit.safetensors"]
    captions.write_text("name,text\ncat,soft fur\n")
    assert cli.main([*command, "--captions", "../captions.csv"]) == 2
    assert "names no images" in capsys.readouterr().err
    captions.write_text("label,text\ncat,soft fur\n")
    assert cli.main([*command, "--captions", "../captions.csv"]) == 0
    assert settings(project).download.captions == "../captions.csv"
    assert "of 1 label: text" in capsys.readouterr().out


def test_without_weights_the_hub_is_asked_before_anything_is_written(project, no_hub, capsys):
    before = (project / "params.yaml").read_text()
    write(project.parent / "photos")
    assert cli.main(["init", "../photos"]) == 2
    error = capsys.readouterr().err
    assert "the weights of tf_efficientnet_lite0" in error or "vit_base_patch16" in error
    assert "--weights weights/" in error and error.count("\n") == 1
    assert (project / "params.yaml").read_text() == before


def test_an_encoder_of_the_hub_is_told_with_its_size(project, hub, capsys):
    write(project.parent / "photos")
    assert cli.main(["init", "../photos", "--encoder", "test_vit"]) == 0
    assert settings(project).encoder.weights == "hub"
    output = capsys.readouterr().out
    assert "weights from the hub, " in output and "MB to fetch" in output


@pytest.mark.parametrize(
    ("make", "kind", "name"),
    [
        (lambda number: image(number, 28, 1), "tiny images", "vit_tiny_patch16_224"),
        (drawing, "drawings", "resnet10t"),
    ],
)
def test_drawings_and_tiny_images_need_no_weights(project, no_hub, capsys, make, kind, name):
    write(project.parent / "set", make)
    assert cli.main(["init", "../set"]) == 0
    encoder = settings(project).encoder
    assert (encoder.name, encoder.weights, encoder.channels) == (name, "none", 1)
    assert f"preset    {kind}" in capsys.readouterr().out


def test_a_flat_folder_is_taught_by_clusters(project, weights, capsys):
    write(project.parent / "photos", labels=(".",), each=30)
    assert cli.main(["init", "../photos", "--weights", str(weights)]) == 0
    params = settings(project)
    assert params.tokenizer.labels == "clusters" and params.pairs.rule == "near"
    assert params.catalog.format == "images"
    assert "photos without labels" in capsys.readouterr().out


def test_labels_can_be_left_aside(project, weights, capsys):
    write(project.parent / "photos")
    assert cli.main(["init", "../photos", "--weights", str(weights), "--unlabelled"]) == 0
    assert settings(project).tokenizer.labels == "clusters"
    assert "2 labels would be used without --unlabelled" in capsys.readouterr().out


@pytest.mark.parametrize(("encoder", "size"), [("test_vit", 0), ("test_resnet", 128)])
def test_the_encoder_of_photos_can_be_tuned(project, tmp_path, capsys, encoder, size):
    path = tmp_path / f"{encoder}.safetensors"
    save_file(timm.create_model(encoder).state_dict(), path)
    write(project.parent / "photos")
    command = ["init", "../photos", "--weights", str(path)]
    assert cli.main([*command, "--tune"]) == 0
    tokenizer = settings(project).tokenizer
    assert tokenizer.tune_encoder and tokenizer.tuned_size == size
    assert "it learns from yours, too" in capsys.readouterr().out
    assert cli.main(command) == 0
    assert settings(project).tokenizer.probe_steps == 0


def test_only_the_encoder_of_photos_with_labels_can_be_tuned(project, weights, capsys):
    write(project.parent / "drawings", drawing)
    assert cli.main(["init", "../drawings", "--tune"]) == 2
    assert "these are drawings: leave --tune out" in capsys.readouterr().err
    command = ["init", "../drawings", "--weights", str(weights), "--tune", "--unlabelled"]
    assert cli.main(command) == 2
    assert "these are photos without labels" in capsys.readouterr().err


def test_settings_of_the_user_are_overwritten_by_force_only(project, weights, capsys):
    write(project.parent / "photos")
    command = ["init", "../photos", "--weights", str(weights)]
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("layers: 3", "layers: 6"))
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert "retriever.layers: 6" in error and "--force" in error
    assert settings(project).download.source == "digits"
    assert cli.main([*command, "--force"]) == 0
    assert cli.main(command) == 0, "its own file is written anew without --force"
    assert cli.main(["init", "digits"]) == 0
    assert settings(project).download.source == "digits"


def test_settings_of_a_compared_set_get_a_file_of_their_own(project, weights, capsys):
    before = (project / "params.yaml").read_text()
    write(project.parent / "photos")
    command = ["init", "../photos", "--weights", str(weights)]
    command += ["--params", "experiments/photos.yaml"]
    assert cli.main(command) == 0
    assert load(project / "experiments" / "photos.yaml").download.source == "../photos"
    assert (project / "params.yaml").read_text() == before
    assert "irgen compare photos" in capsys.readouterr().out.splitlines()[-1]
    path = project / "experiments" / "photos.yaml"
    path.write_text(path.read_text().replace("layers:", "heads: 2\n  layers:"))
    assert cli.main(command) == 2 and "--force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "irgen init ../photos"),
        (["../nowhere"], "'../nowhere' cannot be read"),
        (["../empty"], "holds no image"),
        (["../few"], "some dozens"),
        (["../few/cat/0.png"], "is of no known kind"),
        (["../photos", "--weights", "../none.safetensors"], "no file at ../none.safetensors"),
        (["../photos", "--encoder", "resnet19"], "no model 'resnet19'; near ones"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(project, no_hub, capsys, arguments, message):
    before = (project / "params.yaml").read_text()
    write(project.parent / "photos")
    write(project.parent / "few", each=4)
    (project.parent / "empty").mkdir()
    assert cli.main(["init", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert (project / "params.yaml").read_text() == before
