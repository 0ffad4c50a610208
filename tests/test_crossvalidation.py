"""Cross-validation: folds, trainings and scores of benchmarks/crossvalidation.py."""

import dataclasses
import importlib

import pytest
import torch

from irgen.errors import ParamsError
from irgen.params import load


@pytest.fixture(scope="module")
def crossvalidation(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "benchmarks")
        yield importlib.import_module("crossvalidation")


@pytest.fixture(scope="module")
def fold_training(crossvalidation):
    return importlib.import_module("fold_training")


def test_each_image_is_in_one_of_folds_that_are_alike_in_size(fold_training):
    folds = fold_training.assign_folds(103, 10, 0)
    assert sorted(folds.bincount().tolist()) == [10] * 7 + [11] * 3
    assert not torch.equal(folds, fold_training.assign_folds(103, 10, 1))


@pytest.mark.parametrize("unseen_classes", [False, True])
def test_each_query_is_held_out_of_the_training_of_its_fold(fold_training, unseen_classes):
    labels = torch.arange(7).repeat(12)
    split = fold_training.split_classes if unseen_classes else fold_training.split_images
    queries = []
    for fold in split(labels, 3, 0):
        images = torch.cat([fold.database, fold.queries]).sort().values
        assert torch.equal(images, torch.arange(84)), "each image is there, and once"
        assert set(fold.train.tolist()) <= set(fold.database.tolist())
        unseen = set(labels[fold.queries].tolist()) - set(labels[fold.train].tolist())
        if unseen_classes:
            assert unseen == set(labels[fold.queries].tolist())
            joined = set(fold.database.tolist()) - set(fold.train.tolist())
            assert unseen == set(labels[list(joined)].tolist())
        else:
            assert not unseen and torch.equal(fold.train, fold.database)
        queries += fold.queries.tolist()
    assert len(set(queries)) == len(queries) == (42 if unseen_classes else 84)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True])
def test_held_out_images_are_searched_among_those_of_the_other_folds(
    crossvalidation, fold_training, root, tmp_path, tokenizer_settings, retriever_settings, tuned
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
    images = fold_training.read_images(params, tmp_path)
    fold = next(fold_training.split_images(images.labels, 10, 0))
    results = crossvalidation.measure_fold(params, images, fold, tmp_path, True)
    count, cosine = len(fold.queries), crossvalidation.COSINE
    assert {len(array) for values in results.values() for array in values.values()} == {count}
    precision = results[cosine]["precision/1"].mean()
    assert precision > 0.5  # of ten digits, by a small net's features
    shuffled = dataclasses.replace(images, labels=images.labels[torch.randperm(len(images.labels))])
    random = crossvalidation.measure_fold(params, shuffled, fold, tmp_path, False)
    assert random[cosine]["precision/1"].mean() < 0.3  # labels of queries do not leak
    assert set(random) == {name for name in results if name == cosine or name[-7:] == "× label"}
    unseen_fold = next(fold_training.split_classes(images.labels, 10, 0))
    unseen = crossvalidation.measure_fold(params, images, unseen_fold, tmp_path, False)
    assert unseen[cosine]["precision/1"].shape == (len(unseen_fold.queries),)
    baseline = crossvalidation.measure_baseline(params, images, fold, tmp_path, "irt_r")
    assert baseline["irt_r"]["precision/1"].mean() > 0.5
    assert baseline["irt_r"]["precision/1"].shape == (count,)
    page = crossvalidation.render("digits", results, "one fold")
    assert f"| {cosine} | {precision:.4f} |" in page


def test_settings_are_changed_by_name_and_labels_must_be_given(crossvalidation, root):
    path = root / "experiments" / "clothing-224.yaml"
    params = crossvalidation.read_params(
        path, ["tokenizer.prefix_weight=0.5", "tokenizer.levels=3"]
    )
    assert (params.tokenizer.prefix_weight, params.tokenizer.levels) == (0.5, 3)
    with pytest.raises(ParamsError, match="no_such"):
        crossvalidation.read_params(path, ["tokenizer.no_such=1"])
    with pytest.raises(SystemExit, match=r"tokenizer.labels = given, not clusters"):
        crossvalidation.read_params(path, ["tokenizer.labels=clusters"])
