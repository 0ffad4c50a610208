"""Which encoder a file of weights belongs to."""

import pytest
import timm
from safetensors.torch import save_file

from irgen.checkpoints.recognise import recognise_encoder
from irgen.errors import ParamsError, WeightsError


def save_weights(path, name):
    model = timm.create_model(name)
    save_file(model.state_dict(), path)
    return path


def test_a_file_named_after_its_model_is_that_model(tmp_path):
    path = save_weights(tmp_path / "test_vit.r160_in1k.safetensors", "test_vit")
    assert recognise_encoder(path) == "test_vit.r160_in1k"


def test_a_file_of_any_name_is_recognised_by_its_tensors(tmp_path):
    path = save_weights(tmp_path / "model.safetensors", "resnet18")
    assert recognise_encoder(path) == "resnet18"


def test_a_file_of_an_unknown_model_asks_for_its_name(tmp_path):
    path = save_weights(tmp_path / "model.safetensors", "test_vit")
    with pytest.raises(WeightsError, match="--encoder NAME"):
        recognise_encoder(path)
    assert recognise_encoder(path, "test_vit") == "test_vit"
    with pytest.raises(WeightsError, match="does not hold the weights of resnet18"):
        recognise_encoder(path, "resnet18")
    with pytest.raises(ParamsError, match="no model 'test_vti'"):
        recognise_encoder(path, "test_vti")


@pytest.mark.parametrize(("content", "message"), [(b"none", "not a whole"), (None, "no file at")])
def test_a_file_that_is_damaged_or_missing_is_named(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    if content:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        recognise_encoder(path)
