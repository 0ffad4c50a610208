"""Tokenizer and retriever trained on clusters that a human can check."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from irgen.checkpoints.resume import Resume
from irgen.compute.machine import Machine
from irgen.encoding.batches import EncodedViews, LabelledImages
from irgen.errors import NumberError
from irgen.models import clusters as clustering
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import Retriever
from irgen.models.tokenizer import Tokenizer, losses
from irgen.training import retriever as retrieving
from irgen.training import tokenizer as tokenizing
from irgen.training.run import TrainingRun, scores

CPU = Machine(device=torch.device("cpu"), autocast=None)


class KilledError(Exception):
    """Stands for a SIGKILL between two rounds; the command line's tests send a real one."""


def killed_after(last: int):
    def log(metrics, step):
        if step > last:  # the state after step ``last`` is saved, this one's is not
            raise KilledError

    return log


def quiet(metrics, step):
    pass


def run_in(folder, settings, log) -> TrainingRun:
    resume = Resume(folder, "training", dataclasses.asdict(settings))
    return TrainingRun(machine=CPU, seed=0, log=log, resume=resume)


@pytest.fixture
def clusters() -> tuple[np.ndarray, torch.Tensor]:
    """120 summaries (N, 1, 10) around 4 centres, and their classes (N,)."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 4
    summaries = generator.normal(size=(4, 10))[labels] * 2 + generator.normal(size=(120, 10))
    return summaries[:, None].astype(np.float32), torch.from_numpy(labels)


def train_tokenizer(clusters, settings, folder, log=quiet, labelled=slice(96, None)):
    """``known``: the validation images whose class is taught."""
    summaries, labels = clusters
    torch.manual_seed(0)
    model = Tokenizer(settings, 10, 4, None)
    training = LabelledImages(EncodedViews(summaries[:96], None), labels[:96])
    asked = torch.full_like(labels, -1)
    asked[labelled] = labels[labelled]
    validation = LabelledImages(EncodedViews(summaries[96:], None), asked[96:])
    run = run_in(folder, settings, log)
    return model, tokenizing.train(model, training, validation, settings, run)


def test_validation_images_of_no_class_that_is_taught_say_nothing(
    clusters, tokenizer_settings, tmp_path
):
    settings = dataclasses.replace(tokenizer_settings, steps=72)
    none = train_tokenizer(clusters, settings, tmp_path / "none", labelled=slice(0))[1]
    assert not [name for name in none[-1] if name.startswith("validation")]
    some = train_tokenizer(clusters, settings, tmp_path / "some", labelled=slice(96, 108))[1]
    every = train_tokenizer(clusters, settings, tmp_path / "every")[1]
    assert some[-1]["validation/accuracy/embedding"] > 0.7
    assert some[-1]["loss"] == every[-1]["loss"] == none[-1]["loss"]


def test_the_tokenizer_learns_classes_at_every_prefix_and_logs_all_it_should(
    clusters, tokenizer_settings, tmp_path
):
    settings = dataclasses.replace(tokenizer_settings, steps=72)
    logged = []
    _, history = train_tokenizer(
        clusters, settings, tmp_path, lambda row, step: logged.append((step, row))
    )
    last = history[-1]
    assert last["loss"] < 0.5 * history[0]["loss"]
    for prefix in ("embedding", "prefix_1", "prefix_2", "prefix_3"):
        assert last[f"accuracy/{prefix}"] > 0.9
        assert last[f"validation/accuracy/{prefix}"] > 0.7
    assert {"collision_share", "largest_bucket", "restarts", "perplexity/level_3"} <= set(last)
    assert 1 <= last["codes_used/level_1"] <= settings.codebook
    assert [step for step, _ in logged] == list(range(6, 73, 6))


@pytest.mark.parametrize("last", [6, 18])
def test_a_killed_tokenizer_ends_as_an_unbroken_one(clusters, tokenizer_settings, tmp_path, last):
    whole, history = train_tokenizer(clusters, tokenizer_settings, tmp_path / "whole")
    with pytest.raises(KilledError):
        train_tokenizer(clusters, tokenizer_settings, tmp_path / "broken", killed_after(last))
    steps = []
    resumed, again = train_tokenizer(
        clusters, tokenizer_settings, tmp_path / "broken", lambda row, step: steps.append(step)
    )
    assert steps[0] == last + 6
    assert again == history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_the_tokenizer_stops_early_and_keeps_the_round_that_validated_best(
    clusters, tokenizer_settings, tmp_path
):
    settings = dataclasses.replace(tokenizer_settings, steps=600, patience=3)
    model, history = train_tokenizer(clusters, settings, tmp_path)
    means = scores(history)
    assert history[-1]["step"] < 600 and max(means[-3:]) <= max(means[:-3])
    summaries, labels = clusters
    with torch.inference_mode():
        embeddings = model.eval().adapt(torch.from_numpy(summaries[96:, 0]))
        values = losses(model, embeddings, labels[96:], settings)
    kept = [float(value) for name, value in values.items() if "accuracy" in name]
    assert sum(kept) / len(kept) == pytest.approx(max(means))


def all_pairs(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every other image of the same label as a positive."""
    others = [
        [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]
        for i in range(len(labels))
    ]
    offsets = torch.tensor([0, *itertools.accumulate(map(len, others))])
    return torch.tensor([row for rows in others for row in rows]), offsets


def train_retriever(clusters, settings, folder, held: int, log=quiet):
    summaries, labels = clusters
    tokens = np.repeat(summaries[:, :, None], 3, axis=2)  # (N, 1, P = 3, T = 10)
    codes = torch.stack([labels, torch.arange(120) % 8], dim=1)[:96]
    positives, offsets = all_pairs(labels[:96])
    torch.manual_seed(0)
    shape = Shape(summary_width=10, token_width=10, token_count=3, levels=2, codebook=8)
    model = Retriever(None, IdentifierDecoder(settings, shape))
    data = (
        retrieving.Pairs(EncodedViews(summaries[:96], tokens[:96]), codes, positives, offsets),
        retrieving.Validation(
            LabelledImages(
                EncodedViews(summaries[96 : 96 + held], tokens[96 : 96 + held]),
                labels[96 : 96 + held],
            ),
            labels[:96],
        ),
    )
    run = run_in(folder, settings, log)
    return model, retrieving.train(model, *data, settings, run)


def test_the_retriever_learns_to_write_codes_of_neighbours(clusters, retriever_settings, tmp_path):
    settings = dataclasses.replace(retriever_settings, steps=84)
    _, history = train_retriever(clusters, settings, tmp_path, held=24)
    assert history[-1]["accuracy/level_1"] > 0.8
    assert max(row.get("validation/precision/10", 0) for row in history) > 0.8


def test_without_labels_the_nearest_count_as_hits():
    nothing = LabelledImages(EncodedViews(np.zeros((2, 1, 1)), None), torch.tensor([-1, -1]))
    nearest = torch.tensor([[4, 7], [5, 1]])
    validation = retrieving.Validation(nothing, torch.full((8,), -1), nearest)
    ids = torch.tensor([[7, 3, 4], [4, -1, 5]])
    assert validation.count_hits(torch.tensor([0, 1]), ids) == 3


@pytest.mark.parametrize("held", [0, 24])
def test_a_killed_retriever_ends_as_an_unbroken_one(clusters, retriever_settings, tmp_path, held):
    whole, history = train_retriever(clusters, retriever_settings, tmp_path / "whole", held)
    with pytest.raises(KilledError):
        train_retriever(clusters, retriever_settings, tmp_path / "broken", held, killed_after(12))
    resumed, again = train_retriever(clusters, retriever_settings, tmp_path / "broken", held)
    assert again == history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize("steps", [6, 24])
def test_a_training_that_diverges_stops_and_leaves_the_state_of_its_last_good_round(
    clusters, tokenizer_settings, tmp_path, steps
):
    summaries, labels = clusters
    settings = dataclasses.replace(tokenizer_settings, steps=steps)
    summaries[7] = np.nan  # as a damaged cache would give them
    with pytest.raises(NumberError, match=r"not finite; lower tokenizer.learning_rate"):
        train_tokenizer((summaries, labels), settings, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_weights_that_grow_without_bound_are_never_kept(clusters, retriever_settings, tmp_path):
    settings = dataclasses.replace(retriever_settings, learning_rate=10.0, weight_decay=1e6)
    with pytest.raises(NumberError, match=r"(lower retriever.learning_rate|nothing was written)"):
        train_retriever(clusters, settings, tmp_path, held=24)


def test_training_stops_once_patience_is_out(clusters, retriever_settings, tmp_path):
    settings = dataclasses.replace(retriever_settings, steps=240, learning_rate=0.0, patience=3)
    _, history = train_retriever(clusters, settings, tmp_path, held=24)
    assert len(history) == 4  # one validation, then three without a gain


def test_an_image_without_a_neighbour_is_never_an_anchor(clusters):
    pairs = retrieving.Pairs(
        EncodedViews(clusters[0][:3], None),
        torch.tensor([[0], [1], [2]]),
        torch.tensor([2, 0]),
        torch.tensor([0, 1, 1, 2]),
    )
    assert pairs.anchors().tolist() == [0, 2]
    drawn = pairs.draw(torch.tensor([0, 2]), torch.Generator().manual_seed(0))
    assert drawn.tolist() == [[2], [0]]


def train_by_clusters(clusters, settings, folder, log=quiet):
    """As ``train_tokenizer``, with k-means clusters of the summaries as the classes."""
    summaries, _ = clusters
    first = clustering.cluster(torch.from_numpy(summaries[:96, 0]), settings.clusters, 20, 0)
    torch.manual_seed(0)
    model = Tokenizer(settings, 10, settings.clusters, None)
    data = (
        LabelledImages(EncodedViews(summaries[:96], None), first),
        LabelledImages(EncodedViews(summaries[96:], None), torch.full((24,), -1)),
    )
    run = run_in(folder, settings, log)
    return model, tokenizing.train(model, *data, settings, run)


@pytest.fixture
def by_clusters(tokenizer_settings):
    return dataclasses.replace(tokenizer_settings, labels="clusters", clusters=4, steps=72)


def same_label_share(model, clusters) -> float:
    """Return the share of held-out images whose nearest training image, by tuned embedding, has the
    same label."""
    summaries, labels = clusters
    vectors = model.eval().adapt(torch.from_numpy(summaries[:, 0]))
    nearest = (vectors[96:] @ vectors[:96].T).argmax(1)
    return float((labels[:96][nearest] == labels[96:]).double().mean())


def test_clusters_teach_nearly_as_well_as_labels_where_classes_are_apart(
    clusters, by_clusters, tmp_path
):
    given, _ = train_tokenizer(
        clusters, dataclasses.replace(by_clusters, labels="given"), tmp_path / "given"
    )
    model, history = train_by_clusters(clusters, by_clusters, tmp_path / "clusters")
    assert same_label_share(model, clusters) >= same_label_share(given, clusters) - 0.1 > 0.7
    assert history[-2]["clusters_kept"] > 0.9 and "clusters_kept" not in history[-1]
    assert not [name for row in history for name in row if name.startswith("validation")]
    assert history[-1]["accuracy/prefix_3"] > 0.9


@pytest.mark.parametrize("last", [6, 18])
def test_a_killed_training_by_clusters_goes_on_with_the_clusters_it_had(
    clusters, by_clusters, tmp_path, last
):
    settings = dataclasses.replace(by_clusters, steps=30, clusters=7, learning_rate=0.05)
    whole, history = train_by_clusters(clusters, settings, tmp_path / "whole")
    assert min(row.get("clusters_kept", 1.0) for row in history) < 1  # something is to be restored
    with pytest.raises(KilledError):
        train_by_clusters(clusters, settings, tmp_path / "broken", killed_after(last))
    resumed, again = train_by_clusters(clusters, settings, tmp_path / "broken")
    assert again == history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
