"""An interrupted training goes on as if nothing had happened, or starts anew."""

import pytest
import torch
from torch import nn

from irgen.checkpoints.resume import Resume, TrainingState
from irgen.errors import WeightsError


def start() -> TrainingState:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return TrainingState(
        modules={"model": model}, optimizer=torch.optim.AdamW(model.parameters(), lr=0.1)
    )


def train(state: TrainingState, steps: int) -> None:
    model = state.modules["model"]
    for _ in range(steps):
        state.optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        state.optimizer.step()
        state.history.append({"step": len(state.history) + 1})
        state.tensors = {"labels": torch.arange(len(state.history))}
        state.keep(model)


def resume(file: Resume, state: TrainingState) -> None:
    saved = file.read()
    assert saved is not None
    file.restore(state, saved)


def test_a_restored_training_goes_on_as_if_nothing_had_happened(tmp_path):
    whole, broken, resumed = start(), start(), start()
    train(whole, 6)
    train(broken, 3)
    Resume(tmp_path, "tokenizer").save(broken)
    resume(Resume(tmp_path, "tokenizer"), resumed)
    assert resumed.history == broken.history
    assert torch.equal(resumed.tensors["labels"], broken.tensors["labels"])
    assert torch.equal(resumed.best["weight"], broken.modules["model"].weight)
    train(resumed, 3)
    weights = [state.modules["model"].weight for state in (resumed, whole)]
    assert torch.equal(*weights) and resumed.history == whole.history


def test_another_input_never_finds_the_state(tmp_path):
    state, again = start(), start()
    train(state, 1)
    Resume(tmp_path, "tokenizer", {"steps": 3}).save(state)
    for other in (Resume(tmp_path, "tokenizer", {"steps": 4}), Resume(tmp_path, "retriever")):
        assert other.read() is None
    resume(Resume(tmp_path, "tokenizer", {"steps": 3}), again)
    assert again.history == [{"step": 1}]


def test_a_cleared_state_is_gone(tmp_path):
    state, file = start(), Resume(tmp_path, "tokenizer")
    train(state, 1)
    file.save(state)
    file.clear()
    assert file.read() is None and not list(tmp_path.iterdir())


def test_a_damaged_state_counts_as_none(tmp_path):
    state, file = start(), Resume(tmp_path, "tokenizer")
    train(state, 1)
    file.save(state)
    file.path.write_bytes(file.path.read_bytes()[:20])
    assert file.read() is None


def test_a_state_of_another_architecture_is_refused(tmp_path):
    state, file = start(), Resume(tmp_path, "tokenizer")
    file.save(state)
    wide = nn.Linear(4, 2)
    other = TrainingState(
        modules={"model": wide}, optimizer=torch.optim.AdamW(wide.parameters(), lr=0.1)
    )
    with pytest.raises(WeightsError, match="another architecture"):
        resume(file, other)
