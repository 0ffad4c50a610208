import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from irgen.checkpoints import tensor_file
from irgen.errors import ArtifactError, NumberError, WeightsError


def test_tensors_and_config_come_back(tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    tensors = {"a": torch.arange(6).view(2, 3), "b": torch.tensor(1.5)}
    tensor_file.save(path, tensors, {"labels": ["x", "é"], "width": 3})
    loaded, config = tensor_file.load(path)
    assert config == {"labels": ["x", "é"], "width": 3}
    assert torch.equal(loaded["a"], tensors["a"])
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_file_is_one_clear_error(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"damaged.*dvc repro"):
        tensor_file.load(path)


def test_a_missing_file_names_the_remedy(tmp_path):
    with pytest.raises(ArtifactError, match="run the stage"):
        tensor_file.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_neither_written_nor_loaded(tmp_path, number):
    path, wrong = tmp_path / "model.safetensors", {"deep.weight": torch.tensor([1.0, number])}
    tensor_file.save(path, {"deep.weight": torch.ones(2)}, {})
    with pytest.raises(NumberError, match=r"deep.weight: 1 of 2 numbers are not finite"):
        tensor_file.save(path, wrong, {})
    assert torch.equal(tensor_file.load(path)[0]["deep.weight"], torch.ones(2))
    save_file(wrong, path, metadata={"config": "{}"})
    with pytest.raises(NumberError, match=r"model.safetensors: deep.weight: .*dvc repro"):
        tensor_file.load(path)


def test_weights_of_another_architecture_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"another architecture.*size mismatch"):
        tensor_file.load_into(nn.Linear(2, 3), nn.Linear(3, 3).state_dict(), tmp_path / "w")
