"""benchmarks/crossvalidation.py: who is asked, what is left out of teaching, and what is told."""

import dataclasses
import importlib.util

import pytest
import torch

from irgen.errors import ParamsError
from irgen.params import load


@pytest.fixture(scope="module")
def crossvalidation(root):
    path = root / "benchmarks" / "crossvalidation.py"
    spec = importlib.util.spec_from_file_location("crossvalidation", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_image_is_in_one_of_folds_that_are_alike_in_size(crossvalidation):
    folds = crossvalidation.folds_of(103, 10, 0)
    assert sorted(folds.bincount().tolist()) == [10] * 7 + [11] * 3
    assert not torch.equal(folds, crossvalidation.folds_of(103, 10, 1))


@pytest.mark.parametrize("untaught", [False, True])
def test_each_image_is_asked_about_by_one_who_was_not_taught_it(crossvalidation, untaught):
    labels = torch.arange(7).repeat(12)
    asked = []
    for fold in crossvalidation.draw_folds(labels, 3, 0, untaught=untaught):
        everybody = torch.cat([fold.searched, fold.asked]).sort().values
        assert torch.equal(everybody, torch.arange(84)), "nobody is left out, or there twice"
        assert set(fold.teaching.tolist()) <= set(fold.searched.tolist())
        strange = set(labels[fold.asked].tolist()) - set(labels[fold.teaching].tolist())
        if untaught:
            assert strange == set(labels[fold.asked].tolist())
            joined = set(fold.searched.tolist()) - set(fold.teaching.tolist())
            assert strange == set(labels[list(joined)].tolist())
        else:
            assert not strange and torch.equal(fold.teaching, fold.searched)
        asked += fold.asked.tolist()
    assert len(set(asked)) == len(asked) == (42 if untaught else 84)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True])
def test_a_fold_is_asked_about_among_the_others_that_teach(
    crossvalidation, root, tmp_path, tokenizer_settings, retriever_settings, tuned
):
    default = load(root / "params.yaml")
    params = dataclasses.replace(
        default,
        encoder=dataclasses.replace(
            default.encoder, options={"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
        ),
        tokenizer=dataclasses.replace(
            tokenizer_settings,
            steps=88 if tuned else 220,
            batch_size=128,
            tune_encoder=tuned,
            encoder_learning_rate=0.003,
        ),
        retriever=dataclasses.replace(
            retriever_settings, steps=22, batch_size=128, tune_encoder=tuned, encoder="pretrained"
        ),
    )
    taught = crossvalidation.read_taught(params, tmp_path)
    fold = next(crossvalidation.draw_folds(taught.labels, 10, 0, untaught=False))
    answers = crossvalidation.ask(params, taught, fold, tmp_path, True)
    asked = len(fold.asked)
    assert {len(values) for each in answers.values() for values in each.values()} == {asked}
    scan = answers[crossvalidation.SCAN]["precision/1"].mean()
    assert scan > 0.5  # of ten digits, by a small net's features
    shuffled = dataclasses.replace(taught, labels=taught.labels[torch.randperm(len(taught.labels))])
    none = crossvalidation.ask(params, shuffled, fold, tmp_path, False)
    assert none[crossvalidation.SCAN]["precision/1"].mean() < 0.3  # what is asked taught nobody
    scan_or_label = {
        name for name in answers if name == crossvalidation.SCAN or name[-7:] == "× label"
    }
    assert set(none) == scan_or_label
    strange = next(crossvalidation.draw_folds(taught.labels, 10, 0, untaught=True))
    untaught = crossvalidation.ask(params, taught, strange, tmp_path, False)
    assert untaught[crossvalidation.SCAN]["precision/1"].shape == (len(strange.asked),)
    rival = crossvalidation.ask_baseline(params, taught, fold, tmp_path, "irt_r")
    assert rival["irt_r"]["precision/1"].mean() > 0.5
    assert rival["irt_r"]["precision/1"].shape == (asked,)
    page = crossvalidation.page("digits", answers, "one fold")
    assert f"| {crossvalidation.SCAN} | {scan:.4f} |" in page


def test_settings_are_changed_by_name_and_what_needs_labels_is_refused_without(
    crossvalidation, root
):
    path = root / "experiments" / "clothing-224.yaml"
    params = crossvalidation.params_of(path, ["tokenizer.prefix_weight=0.5", "tokenizer.levels=3"])
    assert (params.tokenizer.prefix_weight, params.tokenizer.levels) == (0.5, 3)
    with pytest.raises(ParamsError, match="no_such"):
        crossvalidation.params_of(path, ["tokenizer.no_such=1"])
    with pytest.raises(SystemExit, match="not meant here"):
        crossvalidation.params_of(path, ["tokenizer.labels=clusters"])
