"""Rounds of a training: their steps, their batches, and when they end."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irgen.errors import NumberError
from irgen.training.run import (
    RoundMeans,
    draw_batches,
    is_best,
    is_exhausted,
    remaining_rounds,
    summarize,
)

ROUND = {"loss": 1.0}


def history_of(*scores, length=10):
    """One row a round, each validated with a score."""
    rows = enumerate(scores, start=1)
    return [{"step": n * length, "loss": 1 / n, "validation/precision/10": s} for n, s in rows]


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 20))
def test_every_image_comes_once_a_pass_and_every_batch_is_full(count, size, start):
    whole = list(draw_batches(range(start + 3 * count), count, size, 0))
    assert all(len(rows) == size for rows in whole)
    order = torch.cat(whole)
    for passed in order[: len(order) // count * count].split(count):
        assert sorted(passed.tolist()) == list(range(count))
    later = draw_batches(range(start, start + 3 * count), count, size, 0)
    assert all(torch.equal(a, b) for a, b in zip(whole[start:], later, strict=True))


def test_passes_and_seeds_have_orders_of_their_own():
    passes = [rows.tolist() for rows in draw_batches(range(2), 50, 50, 0)]
    other = next(draw_batches(range(1), 50, 50, 1)).tolist()
    assert passes[0] != passes[1] and passes[0] != other


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5))
def test_rounds_go_on_where_the_history_ends(steps, length, done):
    whole = list(remaining_rounds([], steps, length))
    assert [step for part in whole for step in part] == list(range(steps))
    history = [{"step": float(part.stop)} for part in whole[:done]]
    assert list(remaining_rounds(history, steps, length)) == whole[done:]


def test_training_ends_when_the_last_validations_brought_no_gain():
    assert not is_exhausted(history_of(0.5, 0.6, 0.6), 2)
    assert is_exhausted(history_of(0.5, 0.6, 0.6, 0.5), 2)
    assert not is_exhausted([ROUND | {"step": 10}] * 9, 2)


def test_the_round_kept_is_the_last_of_the_best_or_the_last_where_nothing_validates():
    assert is_best(history_of(0.5, 0.6)) and is_best(history_of(0.6, 0.6))
    assert not is_best(history_of(0.6, 0.5))
    assert is_best([ROUND | {"step": 10}])


def test_metrics_are_those_of_the_round_kept():
    metrics = summarize(history_of(0.5, 0.7, 0.6), 30)
    assert metrics == {
        "loss": 0.5,
        "validation/precision/10": 0.7,
        "steps": 30,
        "best_step": 20,
        "validation_rising": 0.0,
    }


def test_validation_rises_if_the_last_of_all_steps_is_clearly_the_best():
    assert summarize(history_of(0.5, 0.7), 20)["validation_rising"] == 1
    assert summarize(history_of(0.5, 0.505), 20)["validation_rising"] == 0  # chance
    assert summarize(history_of(0.5, 0.7), 90)["validation_rising"] == 0  # patience ended it
    assert summarize(history_of(0.5), 10)["validation_rising"] == 1  # nothing to compare with
    assert "validation_rising" not in summarize([ROUND | {"step": 10}], 10)


def test_rounds_end_with_the_patience():
    history = history_of(0.5)
    for steps in remaining_rounds(history, 90, 10, patience=2):
        history.append({"step": steps.stop, "validation/precision/10": 0.4})
    assert history[-1]["step"] == 30


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_loss_or_a_gradient_that_is_no_number_names_the_step_and_the_setting(number):
    means = RoundMeans("tokenizer.learning_rate", range(40, 80))
    means.add({"loss": torch.tensor(1.0)}, 8, torch.tensor(0.5))
    message = r"is (nan|inf) at step 42: .* lower tokenizer.learning_rate in params.yaml"
    with pytest.raises(NumberError, match=f"loss {message}"):
        means.add({"loss": torch.tensor(number)}, 8)
    means = RoundMeans("tokenizer.learning_rate", range(41, 80))
    with pytest.raises(NumberError, match=f"gradient {message}"):
        means.add({"loss": torch.tensor(1.0)}, 8, torch.tensor(number))
