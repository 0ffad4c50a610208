import dataclasses

import pytest
import timm
import torch
from safetensors.torch import save_file

from irgen.checkpoints.weights import create_encoder, untrained_encoder
from irgen.errors import NumberError, ParamsError, WeightsError
from irgen.params import Encoder

SMALL = Encoder(
    name="resnet10t",
    weights="none",
    image_size=32,
    channels=3,
    crop=1.0,
    options={"channels": [8, 8, 16, 24], "stem_width": 8},
)


def test_untrained_weights_are_seeded():
    one, again, other = (create_encoder(SMALL, seed).state_dict() for seed in (0, 0, 1))
    name = "backbone.conv1.0.weight"
    assert torch.equal(one[name], again[name])
    assert not torch.equal(one[name], other[name])


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(5)
    model = timm.create_model("resnet10t", num_classes=7, channels=(8, 8, 16, 24), stem_width=8)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    return model, dataclasses.replace(SMALL, weights=str(tmp_path / "w.safetensors"))


def test_a_local_file_is_loaded_and_its_classifier_left_out(saved):
    model, config = saved
    loaded = create_encoder(config, 0).backbone
    assert torch.equal(loaded.conv1[0].weight, model.conv1[0].weight)
    assert not any(name.startswith("fc.") for name in loaded.state_dict())


def test_first_weights_that_are_no_numbers_are_refused_by_name(saved):
    model, config = saved
    model.conv1[0].weight.data[0, 0, 0, 0] = torch.nan
    save_file(model.state_dict(), config.weights)
    with pytest.raises(NumberError, match=r"w.safetensors: conv1.0.weight: 1 of .*fetch the file"):
        create_encoder(config, 0)


def test_colour_weights_serve_grey_images(saved):
    _, config = saved
    encoder = create_encoder(dataclasses.replace(config, channels=1), 0).eval()
    assert encoder(torch.zeros(1, 1, 32, 32))[0].shape == (1, 24)


def test_weights_of_another_architecture_are_one_clear_error(saved):
    _, config = saved
    wrong = dataclasses.replace(config, name="resnet18", options={})
    with pytest.raises(WeightsError, match=r"do not load into 'resnet18'.*very architecture"):
        create_encoder(wrong, 0)


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_damaged_file_is_one_clear_error(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="do not load"):
        create_encoder(dataclasses.replace(SMALL, weights=str(tmp_path / "w.safetensors")), 0)


def test_a_missing_file_names_what_is_allowed():
    with pytest.raises(WeightsError, match=r"no file at nowhere.*'hub' or 'none'"):
        create_encoder(dataclasses.replace(SMALL, weights="nowhere.safetensors"), 0)


def test_an_unknown_model_names_near_ones():
    with pytest.raises(ParamsError, match=r"no model 'resnet19'; near ones: .*resnet"):
        create_encoder(dataclasses.replace(SMALL, name="resnet19"), 0)


def test_an_option_the_model_does_not_know_is_refused():
    with pytest.raises(ParamsError, match=r"options.*'resnet10t' refuses.*depht"):
        create_encoder(dataclasses.replace(SMALL, options={"depht": 3}), 0)


def test_the_real_imagenet_weights_load(shared):
    config = dataclasses.replace(
        SMALL,
        name="tf_efficientnet_lite0",
        weights=str(shared / "weights" / "tf_efficientnet_lite0.safetensors"),
        options={},
        image_size=64,
    )
    encoder = create_encoder(config, 0)
    blank = untrained_encoder(config)
    name = "backbone.conv_stem.weight"
    assert not torch.equal(encoder.state_dict()[name], blank.state_dict()[name])
    assert encoder.width == 1280
