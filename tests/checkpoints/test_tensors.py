import pytest
import torch
from torch import nn

from irgen.checkpoints import tensor_file
from irgen.errors import ArtifactError, WeightsError


def test_tensors_and_config_come_back(tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    tensors = {"a": torch.arange(6).view(2, 3), "b": torch.tensor(1.5)}
    tensor_file.save(path, tensors, {"labels": ["x", "é"], "width": 3})
    found, config = tensor_file.load(path)
    assert config == {"labels": ["x", "é"], "width": 3}
    assert torch.equal(found["a"], tensors["a"])
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


def test_weights_of_another_architecture_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"another architecture.*size mismatch"):
        tensor_file.load_into(nn.Linear(2, 3), nn.Linear(3, 3).state_dict(), tmp_path / "w")


def test_an_optimiser_goes_on_as_if_nothing_had_happened():
    def steps(model, adam, count):
        for _ in range(count):
            adam.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            adam.step()

    def start():
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    whole, adam = start()
    steps(whole, adam, 6)
    broken, adam = start()
    steps(broken, adam, 3)
    weights, moments = broken.state_dict(), tensor_file.optimizer_tensors(adam)
    resumed, adam = start()
    resumed.load_state_dict(weights)
    tensor_file.restore_optimizer(adam, {**moments, "model.other": torch.zeros(1)})
    steps(resumed, adam, 3)
    assert torch.equal(resumed.weight, whole.weight)


def test_another_input_never_finds_the_state(tmp_path):
    one = tensor_file.Resume(tmp_path, "tokenizer", {"epochs": 3})
    one.save({"a": torch.ones(1)}, [{"epoch": 1}])
    assert tensor_file.Resume(tmp_path, "tokenizer", {"epochs": 4}).load() is None
    again = tensor_file.Resume(tmp_path, "tokenizer", {"epochs": 3})
    assert again.load()[1] == [{"epoch": 1}]
    again.clear()
    assert one.load() is None


def test_a_damaged_state_counts_as_none(tmp_path):
    resume = tensor_file.Resume(tmp_path, "tokenizer")
    resume.save({"a": torch.ones(1)}, [])
    resume.path.write_bytes(resume.path.read_bytes()[:20])
    assert resume.load() is None
