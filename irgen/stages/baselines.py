"""What the paper compares with, on the same queries: other searches of the tuned embeddings, and
exact scans of descriptors that are trained by ranking losses."""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from irgen.catalog.table import read_table
from irgen.checkpoints.identifiers import Identified, load_identified
from irgen.checkpoints.models import assemble
from irgen.checkpoints.weights import create_encoder
from irgen.encoding.batches import EncodedViews, LabelledImages, Pixels
from irgen.encoding.encode import (
    Encoding,
    decode_pixels,
    encode_views,
    open_encoding,
    stream_batches,
)
from irgen.encoding.query_features import encode_queries
from irgen.evaluation import ann, methods
from irgen.evaluation.latency import TIMED_BATCHES
from irgen.evaluation.measure import EvalConfig, measure_methods
from irgen.evaluation.methods import Method
from irgen.evaluation.query_set import QuerySet, read_query_set
from irgen.models.descriptors import CgdHead, DescriptorModel, IrtHead
from irgen.models.encoder import ImageEncoder
from irgen.models.tokenizer import class_numbers
from irgen.params import Params
from irgen.params.baselines import Descriptor
from irgen.params.strict import flatten
from irgen.training import descriptors, ranking_losses
from irgen.training.run import TrainingRun, open_run
from irgen.workspace import Workspace


@dataclass(frozen=True)
class Rival:
    """A head and what it is trained for; ``head`` makes it for an encoder and classes, ``tokens``
    says whether it reads any."""

    settings: Descriptor
    losses: descriptors.Losses
    head: Callable[[ImageEncoder, int], CgdHead | IrtHead]
    tokens: bool


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/baselines/``: metrics.json, precision.csv and a run a method, as ``evaluate``
    does of its methods; and ``reports/baselines-latency.json``. Raises ExtraError if a package of
    the extra ``compare`` is missing."""
    encoding, cutoffs = open_encoding(params.compute, workspace), params.evaluate.cutoffs
    query_set = read_query_set(workspace, max(cutoffs))
    identified = load_identified(workspace.existing("identifiers", "database"))
    ann.library()
    ranking_losses.load_library()
    asked = query_set.queries["sha256"].to_list()
    compared = approximate(params, workspace, identified, asked, encoding)
    rivals, runs = trained(params, workspace, query_set, encoding, log)
    size = params.evaluate.batch_size
    pretrained = create_encoder(params.encoder, params.seed).eval().to(encoding.machine.device)
    config = EvalConfig(
        query_set=query_set,
        cutoffs=cutoffs,
        batch_size=size,
        machine=encoding.machine,
        timing_images=lambda: decode_pixels(pretrained, asked[: TIMED_BATCHES * size], encoding),
        reference=methods.search_pretrained(pretrained, workspace, asked, encoding),
    )
    places = workspace.stage("baselines"), workspace.reports / "baselines-latency.json"
    found = measure_methods(compared | rivals, config, identified.codes.numpy(), *places)
    for run in runs:
        run.clear()
    return found


def approximate(
    params: Params,
    workspace: Workspace,
    identified: Identified,
    asked: list[str],
    encoding: Encoding,
) -> dict[str, Method]:
    """Approximate searches of the tuned embeddings, by the queries that the exact scan is given.
    ``asked``: the queries' hashes. ScaNN's name says whether it is itself or what is like it."""
    device, settings = encoding.machine.device, params.baselines
    models = assemble(
        workspace.existing("tokenizer", "tokenizer.safetensors"),
        workspace.existing("retriever", "retriever.safetensors"),
        create_encoder(params.encoder, params.seed).eval(),
    ).to(device)
    known = encode_queries(models, asked, encoding).embedding.to(device)
    given = methods.encode_as_vectors(models.embed, known), identified.embeddings
    if ann.scann_library():
        scann = {"scann": ann.scann(*given, settings.scann)}
    else:
        scann = {"scann_like": ann.scann_like(*given, settings.scann)}
    return {
        "hnsw": ann.hnsw(*given, settings.hnsw),
        "ivf_pq": ann.ivf_pq(*given, settings.ivf_pq),
        **scann,
        "spann_like": ann.spann_like(*given, settings.spann),
    }


def trained(
    params: Params, workspace: Workspace, query_set: QuerySet, encoding: Encoding, log: Callable
) -> tuple[dict[str, Method], list[TrainingRun]]:
    """Exact scans of descriptors trained on the tokenizer's training images, with its encoder's
    first weights, frozen or tuned as there; and the runs to clear once all is written."""
    train = read_table(workspace.existing("catalog", "train.parquet"))
    frozen = None if params.tokenizer.tune_encoder else create_encoder(params.encoder, params.seed)
    models, runs, device = {}, [], encoding.machine.device
    for name, rival in rivals(params).items():
        sections = [flatten(part) for part in (params.encoder, params.augment, rival.settings)]
        depends_on = [descriptors.VERSION, sections, params.tokenizer.tune_encoder, train.rows()]
        run = open_run(
            workspace.cache / "training",
            name,
            encoding.machine,
            params.seed,
            _named(log, name),
            depends_on,
        )
        models[name] = describe(params, train, rival, frozen, encoding, run)
        runs.append(run)
    queries = embed_all(models, query_set.queries, encoding)
    database = embed_all(models, query_set.database, encoding)
    found = {
        name: methods.brute_force(
            methods.encode_as_vectors(model, queries[name].to(device)),
            database[name].to(device),
            4 * database[name].shape[1],
        )
        for name, model in models.items()
    }
    return found, runs


def rivals(params: Params) -> dict[str, Rival]:
    """Those of the paper's tables, by name."""
    return {
        "cgd": Rival(
            params.baselines.cgd,
            ranking_losses.cgd_losses,
            lambda encoder, n: CgdHead(encoder.token_width, n, params.baselines.cgd),
            tokens=True,
        ),
        "irt_r": Rival(
            params.baselines.irt_r,
            ranking_losses.irt_losses,
            lambda encoder, n: IrtHead(encoder.width, params.baselines.irt_r),
            tokens=False,
        ),
    }


def describe(
    params: Params,
    train: pl.DataFrame,
    rival: Rival,
    frozen: ImageEncoder | None,
    encoding: Encoding,
    run: TrainingRun,
) -> DescriptorModel:
    """Train a rival on the images of ``train``, with the ``frozen`` encoder or one of its own; the
    model returned takes pixels."""
    encoder = frozen or create_encoder(params.encoder, params.seed)
    sha256s = train["sha256"].to_list()
    images: EncodedViews | Pixels
    if frozen is None:
        decoded = decode_pixels(encoder, sha256s, encoding)
        images = Pixels(decoded, encoder.decoding.size, params.augment)
    else:
        images = encode_views(encoder, sha256s, params.augment, params.seed, encoding)
        images = images if rival.tokens else images.without_tokens()
    numbers = class_numbers(train["label"], train["label"].unique().sort().to_list())
    return teach(rival, encoder, frozen is None, LabelledImages(images, numbers), run)


def teach(
    rival: Rival, encoder: ImageEncoder, tuned: bool, data: LabelledImages, run: TrainingRun
) -> DescriptorModel:
    """Train a rival on ``data``, in which every class number occurs; the model returned takes
    pixels, by ``encoder``, whether or not that was ``tuned``."""
    torch.manual_seed(run.seed)
    head = rival.head(encoder, int(data.labels.max()) + 1)
    model = DescriptorModel(head, encoder if tuned else None)
    descriptors.train(model, data, rival.losses, rival.settings, run)
    return DescriptorModel(head, encoder).to(run.machine.device).eval()


@torch.inference_mode()
def embed_all(
    models: dict[str, DescriptorModel], table: pl.DataFrame, encoding: Encoding
) -> dict[str, Tensor]:
    """Each model's descriptors (N, D) of a table's images, on the CPU; always in full batches, so
    that an image's descriptor does not depend on the others. Models that share an encoder share
    what it makes of an image."""
    sha256s, machine = table["sha256"].to_list(), encoding.machine
    parts: dict[str, list[Tensor]] = {name: [] for name in models}
    decoding = encoder_of(next(iter(models.values()))).decoding
    for batch, new in stream_batches(sha256s, decoding, encoding, "descriptors"):
        images = batch.to(machine.device)
        encoded: dict[ImageEncoder, tuple[Tensor, Tensor]] = {}
        for name, model in models.items():
            encoder = encoder_of(model)
            with machine.precision():
                if encoder not in encoded:
                    encoded[encoder] = encoder(images)
                parts[name].append(model.describe(*encoded[encoder])[:new].float().cpu())
    return {name: torch.cat(each) for name, each in parts.items()}


def encoder_of(model: DescriptorModel) -> ImageEncoder:
    """The encoder of a model that reads pixels."""
    assert model.encoder is not None, "it reads pixels"
    return model.encoder


def _named(log: Callable, name: str) -> Callable:
    """``log`` with the method's name before each metric's."""

    def under(row: dict[str, float], step: int) -> None:
        log({f"{name}/{key}": value for key, value in row.items()}, step)

    return under
