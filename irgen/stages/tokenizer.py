"""Train the semantic tokenizer: encoder or adapter, class heads at every prefix, codebooks.

Time: in proportion to the steps and, within a step, to the labels; the k-means of a round takes a
sample and one pass over N images.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.catalog.table import read_table
from irgen.checkpoints.fingerprint import weights_digest
from irgen.checkpoints.history import write_history
from irgen.checkpoints.resume import History
from irgen.checkpoints.tokenizer import save_tokenizer
from irgen.checkpoints.weights import create_encoder, reads_one_size
from irgen.compute.checks import MANY
from irgen.compute.cluster import connect
from irgen.compute.workers import run_workers
from irgen.encoding.batches import EncodedViews, LabelledImages, Pixels
from irgen.encoding.encode import Encoding, open_encoding
from irgen.encoding.training_images import load_training_images
from irgen.encoding.views import encode_views
from irgen.errors import CatalogError, NumberError, ParamsError
from irgen.files.digests import file_digest
from irgen.files.sealed import read_array
from irgen.files.workspace import Workspace
from irgen.models.clusters import cluster
from irgen.models.encoder import ImageEncoder
from irgen.models.tokenizer import Tokenizer, class_numbers
from irgen.params import Augment, Params
from irgen.params import Encoder as EncoderSettings
from irgen.params import Tokenizer as Settings
from irgen.params.strict import flatten
from irgen.training import tokenizer as training
from irgen.training.run import Log, TrainingRun, log_with_prefix, open_run, summarize

ROLES = ("train", "validation")
MOST_LABELS = 200_000  # a batch of 64 images has 256 MB of logits then, with M = 4


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/tokenizer/tokenizer.safetensors`` (weights and codebooks) and ``history.csv``.

    Reads training and validation images only. With ``labels: clusters`` no label is read: at first,
    classes are clusters of the pretrained features. Raises CatalogError for fewer training images
    than codes or clusters, and for images without a label if labels are used; NumberError if a loss
    or a weight is not finite, or if all images get the same code; ParamsError for a ``tuned_size``
    that the encoder does not read.
    """
    check_tuned_size(params)
    with ExitStack() as stack:
        if params.compute.engine == "ray":
            stack.enter_context(connect(params.compute))
            encode_ahead(params, workspace)
        return run_workers(train_tokenizer, (params, workspace), params.compute, log)


def encode_ahead(params: Params, workspace: Workspace) -> None:
    """Encode the views of a frozen encoder with all workers of the cluster, before the processes of
    the training take these."""
    if params.tokenizer.tune_encoder and not params.tokenizer.probe_steps:
        return
    tables = read_images(params.tokenizer, workspace)
    list_classes(tables[0], params.tokenizer)  # what cannot be trained is not encoded
    encoding = open_encoding(params.compute, workspace)
    encoder = create_encoder(params.encoder, params.seed)
    for table in tables:
        encode_views(encoder, table["sha256"].to_list(), params.augment, params.seed, encoding)


def read_images(settings: Settings, workspace: Workspace) -> list[pl.DataFrame]:
    """Return the tables of training and validation images. Clusters are not validated."""
    paths = (workspace.existing("catalog", f"{role}.parquet") for role in ROLES)
    train, validation = map(read_table, paths)
    return [train, validation if settings.labels == "given" else validation.clear()]


def train_tokenizer(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Train with the other processes of ``run``. The first one writes what comes of it."""
    trainer = open_trainer(params, workspace, log)
    settings, encoder = params.tokenizer, create_encoder(params.encoder, params.seed)
    if settings.tune_encoder and settings.probe_steps:
        frozen = replace(settings, tune_encoder=False, steps=settings.probe_steps)
        tuned_runs = tune(trainer, encoder, frozen)
        model, history, run = trainer.train("tokenizer", frozen, encoder, log)
        model.encoder, steps, runs = encoder, frozen.steps, [*tuned_runs, run]
    else:
        model, history, run = trainer.train("tokenizer", settings, encoder, log)
        steps, runs = settings.steps, [run]
    if trainer.encoding.machine.world.rank > 0:
        return {}
    metrics, count = summarize(history, steps), len(trainer.tables[0])
    if metrics["codes_used/level_1"] == 1 and count >= MANY:
        raise NumberError(
            f"all {count:,} training images have the same first code: the embeddings have "
            "collapsed; lower tokenizer.learning_rate, or choose another encoder or other weights"
        )
    folder = workspace.stage("tokenizer")
    save_tokenizer(
        folder / "tokenizer.safetensors", model, params.encoder, settings, trainer.classes
    )
    write_history(folder / "history.csv", history)
    for run in runs:
        run.clear()
    return metrics


def tune(trainer: "Trainer", encoder: ImageEncoder, frozen: Settings) -> list[TrainingRun]:
    """Train a pretrained ``encoder`` in place: all else first (``frozen``), then both together.
    Return the runs."""
    probe_log, tuning_log = (
        partial(log_with_prefix, trainer.log, name) for name in ("probe", "tuning")
    )
    first, both = (replace(s, pretrained_width=0) for s in (frozen, trainer.settings))
    start, _, probe = trainer.train("probe", first, encoder, probe_log)
    _, _, tuning = trainer.train("tuning", both, encoder, tuning_log, start)
    return [probe, tuning]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Train tokenizers on the same images. ``tables`` and class ``numbers`` are of training and
    validation images; ``features`` (N, S) of the pretrained encoder, if there are no labels;
    ``contents``: digests of all that was read."""

    settings: Settings
    encoder: EncoderSettings
    augment: Augment
    seed: int
    encoding: Encoding
    classes: list[str]
    tables: list[pl.DataFrame]
    numbers: list[Tensor]
    features: Tensor | None
    contents: list[str]
    log: Log

    def train(
        self,
        name: str,
        settings: Settings,
        encoder: ImageEncoder,
        log: Log,
        start: Tokenizer | None = None,
    ) -> tuple[Tokenizer, History, TrainingRun]:
        """Return a tokenizer trained behind ``encoder``, with it if that is tuned; its history and
        its run. ``start``: whose weights it begins with."""
        torch.manual_seed(self.seed)
        own = encoder if settings.tune_encoder else None
        model = Tokenizer(settings, encoder.width, len(self.classes), own)
        if start is not None:
            model.load_state_dict(start.state_dict(), strict=False)
        training_images, validation_images = (
            self._load(settings, encoder, table) for table in self.tables
        )
        if settings.pretrained_width and isinstance(training_images, EncodedViews):
            model.adapter.keep_directions(training_images.summaries[:, 0])
        sections = [self.encoder, self.augment, self.settings, settings]
        run = open_run(
            self.encoding.cache / "training",
            name,
            self.encoding.machine,
            self.seed,
            log,
            [training.VERSION, [flatten(section) for section in sections], self.contents],
        )
        history = training.train(
            model,
            LabelledImages(training_images, self.numbers[0], self.features),
            LabelledImages(validation_images, self.numbers[1]),
            settings,
            run,
        )
        return model, history, run

    def _load(
        self, settings: Settings, encoder: ImageEncoder, table: pl.DataFrame
    ) -> EncodedViews | Pixels:
        images = load_training_images(
            encoder,
            table["sha256"].to_list(),
            self.augment,
            self.seed,
            self.encoding,
            tuned=settings.tune_encoder,
        )
        if isinstance(images, EncodedViews):
            return images.without_tokens()
        return replace(images, size=settings.tuned_size) if settings.tuned_size else images


def open_trainer(params: Params, workspace: Workspace, log: Log) -> Trainer:
    """Return what trains the tokenizers of a project, and has read what they are trained on."""
    compute = replace(params.compute, engine="local")  # what is not encoded ahead
    settings, encoding = params.tokenizer, open_encoding(compute, workspace)
    tables = read_images(settings, workspace)
    classes = list_classes(tables[0], settings)
    inputs = [workspace.existing("catalog", f"{role}.parquet") for role in ROLES]
    features = None
    if settings.labels == "given":
        numbers = [class_numbers(table["label"], classes) for table in tables]
    else:
        inputs.append(workspace.existing("features", "train", "features.npy"))
        features = torch.from_numpy(read_array(inputs[-1]))
        world = encoding.machine.world
        clusters = world.once(cluster_features, settings, params.seed, features)
        numbers = [clusters, torch.empty(0).long()]
    return Trainer(
        settings=settings,
        encoder=params.encoder,
        augment=params.augment,
        seed=params.seed,
        encoding=encoding,
        classes=classes,
        tables=tables,
        numbers=numbers,
        features=features,
        contents=[weights_digest(params.encoder), *map(file_digest, inputs)],
        log=log,
    )


def check_tuned_size(params: Params) -> None:
    """Raise ParamsError if the encoder reads images of one size, and shall be tuned on another."""
    size, encoder = params.tokenizer.tuned_size, params.encoder
    if size not in (0, encoder.image_size) and reads_one_size(encoder.name):
        raise ParamsError(
            f"params.yaml: tokenizer: tuned_size: {encoder.name} does not read images of {size} "
            f"pixels, only of {encoder.image_size}, as encoder.image_size says; set it to 0"
        )


def list_classes(train: pl.DataFrame, settings: Settings) -> list[str]:
    """Return the names of the classes: the labels of training images, or numbers of clusters.
    Raises CatalogError for missing or too many labels, and for too few images."""
    images = len(train)
    if images < settings.codebook:
        raise CatalogError(
            f"tokenizer: codebook: {settings.codebook} codes a level cannot be fitted to {images} "
            f"training images; set tokenizer.codebook to {images} or less, or add images"
        )
    if settings.labels == "given":
        if missing := train["label"].null_count():
            raise CatalogError(
                f"tokenizer: labels: given, but {missing:,} training images have no label; give "
                "the source labels, or set tokenizer.labels to clusters"
            )
        labels = train["label"].unique().sort().to_list()
        if len(labels) > MOST_LABELS:
            raise CatalogError(
                f"tokenizer: labels: the training images have {len(labels):,} labels; a classifier "
                f"of at most {MOST_LABELS:,} can be trained, as each batch is compared with all of "
                "them: join labels, or set tokenizer.labels to clusters"
            )
        return labels
    if images < settings.clusters:
        raise CatalogError(
            f"tokenizer: clusters: {images} training images cannot form {settings.clusters} "
            f"clusters; set tokenizer.clusters to {images} or less, or add images"
        )
    return [str(number) for number in range(settings.clusters)]


def cluster_features(settings: Settings, seed: int, features: Tensor) -> Tensor:
    """Return the cluster (N,) of each training image, by the cosine of pretrained features
    (N, S)."""
    unit = F.normalize(features, dim=-1)
    return cluster(unit, settings.clusters, settings.kmeans_iterations, seed)
