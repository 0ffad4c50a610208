"""Train the tokenizer: gradient steps on the network, residual k-means on the codebooks, in
turn."""

import torch
from torch import Tensor, nn

from irgen.checkpoints.resume import History, TrainingState
from irgen.compute.checks import check_finite
from irgen.compute.seeds import seed_everything, seeded_generator
from irgen.encoding.batches import EncodedViews, LabelledImages, Pixels, read_in_order
from irgen.models import clusters, quantizer
from irgen.models.tokenizer import Tokenizer, losses
from irgen.params import Tokenizer as Settings
from irgen.training.optimizer import create_optimizer, set_rates
from irgen.training.run import (
    RoundMeans,
    TrainingRun,
    draw_batches,
    is_best,
    remaining_rounds,
    round_length,
    show_progress,
)

VERSION = 4  # raise when a training gives another tokenizer


def train(
    model: Tokenizer,
    training: LabelledImages,
    validation: LabelledImages,
    settings: Settings,
    run: TrainingRun,
) -> History:
    """Train ``model`` in place and return one row of metrics a round (paper, section 3.1).

    A round is gradient steps against fixed codebooks, then residual k-means of all training
    embeddings. The tokenizer kept is that of the round with the best validation accuracies, or of
    the last one where nothing validates.

    With ``labels: clusters`` embeddings keep the neighbours of the pretrained features, which
    ``training`` has; the adapter starts at their principal directions. The classes are clusters
    (DeepCluster's idea), and ``training`` has those of the start. Whenever codebooks are refitted,
    embeddings are clustered anew, and a new cluster takes the number of the old one it shares most
    images with. There are no validation accuracies then, as there are no true labels.
    """
    device, world, images = run.machine.device, run.machine.world, training.images
    if training.features is not None:
        model.adapter.start_at_features(training.features)
    model.to(device)
    others = [*model.adapter.parameters(), model.classes]
    adam = create_optimizer(model.encoder, others, settings)
    state = TrainingState(modules={"model": model}, optimizer=adam)
    state.tensors["labels"] = training.labels
    run.restore(state)
    if not state.history:
        vectors = _embed(model, images, settings, run)
        model.codebooks.copy_(world.once(_refit, vectors, None, settings, run.seed)[0])
    size = settings.batch_size
    own = world.share(size)
    length = round_length(len(images), size, settings.validate_every)
    for steps in remaining_rounds(state.history, settings.steps, length, settings.patience):
        seed_everything(run.seed, steps.start, world.rank)  # dropout
        generator = seeded_generator(run.seed, steps.start)
        model.train()
        labels, means = state.tensors["labels"], RoundMeans("tokenizer.learning_rate", steps)
        batches = images.prefetch(draw_batches(steps, len(images), size, run.seed), own)
        for step, rows in show_progress(batches, "tokenizer", steps, settings.steps):
            set_rates(adam, step, settings)
            inputs = run.machine.send(images.training(rows, generator, own)[0])
            with run.machine.precision():
                embeddings = world.gather(model.embed(inputs), size)  # (B, D)
            features = None if training.features is None else training.features[rows].to(device)
            values = losses(model, embeddings, labels[rows].to(device), settings, features)
            adam.zero_grad()
            values["loss"].backward()
            world.average_gradients(model.parameters())
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            means.add(values, len(rows), norm)
        world.copy_first(model.buffers())  # statistics of batch norm
        seed, vectors = run.seed + steps.stop, _embed(model, images, settings, run)
        start = model.codebooks.cpu()
        codebooks, spread = world.once(_refit, vectors, start, settings, seed)
        model.codebooks.copy_(codebooks)
        row = means.row() | spread
        if settings.labels == "given":
            row |= _validate(model, validation, settings, run)
        elif steps.stop < settings.steps:
            state.tensors["labels"] = world.once(_recluster, vectors, labels, settings, seed)
            row["clusters_kept"] = float((state.tensors["labels"] == labels).double().mean())
        state.history.append({"step": steps.stop, **row})
        if is_best(state.history):
            state.keep(model)
        run.end_round(state)
    model.load_state_dict(state.best)
    return state.history


@torch.inference_mode()
def _embed(
    model: Tokenizer, images: EncodedViews | Pixels, settings: Settings, run: TrainingRun
) -> Tensor:
    """Return unit embeddings (N, D) of the plain views, in eval mode, on the CPU of the first
    process. The others embed a share, and return that."""
    model.eval()
    size = settings.batch_size
    own = run.machine.world.split(-(-len(images) // size))  # of the batches
    share = torch.empty(len(range(len(images))[own.start * size : own.stop * size]), settings.width)
    for rows, new in read_in_order(images, size, own):
        with run.machine.precision():
            embeddings = model.embed(run.machine.send(images.plain(rows)[0]))
        start = int(rows[0]) - own.start * size
        share[start : start + new] = embeddings[:new]
    vectors = run.machine.world.collect(share)
    check_finite(vectors, "embeddings of the tokenizer", "lower tokenizer.learning_rate")
    return vectors


def _refit(
    vectors: Tensor, codebooks: Tensor | None, settings: Settings, seed: int
) -> tuple[Tensor, dict[str, float]]:
    """Return codebooks (M, L, D) fitted to embeddings (N, D) by residual k-means, and how codes
    spread.

    ``codebooks``: those to begin with; None: k-means++ starts.
    """
    shape = (settings.levels, settings.codebook)
    iterations = settings.kmeans_iterations
    codebooks, restarts = quantizer.fit(vectors, codebooks, shape, iterations, seed)
    spread = quantizer.usage(quantizer.encode(vectors, codebooks), settings.codebook)
    return codebooks, spread | {"restarts": float(restarts)}


def _recluster(vectors: Tensor, labels: Tensor, settings: Settings, seed: int) -> Tensor:
    """Return clusters (N,) of embeddings (N, D), numbered as most images of ``labels`` (N,) are."""
    count = settings.clusters
    numbers = clusters.cluster(vectors, count, settings.kmeans_iterations, seed)
    return clusters.match_numbers(numbers, labels, count)


@torch.inference_mode()
def _validate(
    model: Tokenizer, validation: LabelledImages, settings: Settings, run: TrainingRun
) -> dict[str, float]:
    """Return accuracies of the embedding and of every prefix on validation images of trained
    classes; nothing if there are none."""
    trained = validation.labels >= 0
    if not trained.any():
        return {}
    vectors = _embed(model, validation.images, settings, run)

    def measure() -> dict[str, float]:
        embeddings, labels = (
            part[trained].to(run.machine.device) for part in (vectors, validation.labels)
        )
        values = losses(model, embeddings, labels, settings)
        return {f"validation/{name}": float(v) for name, v in values.items() if "accuracy" in name}

    return run.machine.world.once(measure)
