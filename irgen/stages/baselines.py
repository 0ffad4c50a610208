"""What the paper compares with, on the same queries: other searches of the tuned embeddings, and
exact scans of descriptors that are trained by ranking losses."""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from irgen.catalog.images import stream_pixels
from irgen.catalog.table import read_table
from irgen.checkpoints.identifiers import Identified, load_identified
from irgen.checkpoints.models import assemble
from irgen.checkpoints.tensor_file import Resume
from irgen.checkpoints.weights import create_encoder
from irgen.compute import Machine
from irgen.encoding.batches import EncodedViews, Pixels, full_batches
from irgen.encoding.encode import Encoding, decode_pixels, encode_views, open_encoding
from irgen.encoding.query_features import encode_queries
from irgen.evaluation import ann, methods
from irgen.evaluation.measuring import TIMED, EvalConfig, QuerySet, measure, read_questions
from irgen.evaluation.methods import Method
from irgen.models.descriptors import Combined, Described, Projected
from irgen.models.encoder import ImageEncoder
from irgen.models.tokenizer import class_numbers
from irgen.params import Params
from irgen.params.baselines import Descriptor
from irgen.params.strict import flatten
from irgen.training import descriptors, rankings
from irgen.workspace import Workspace


@dataclass(frozen=True)
class Rival:
    """A head and what it is trained for; ``head`` makes it for an encoder and classes, ``tokens``
    says whether it reads any."""

    settings: Descriptor
    losses: descriptors.Losses
    head: Callable[[ImageEncoder, int], Combined | Projected]
    tokens: bool


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/baselines/``: metrics.json, precision.csv and a run a method, as ``evaluate``
    does of its methods; and ``reports/baselines-latency.json``. Raises ExtraError if a package of
    the extra ``compare`` is missing."""
    encoding, cutoffs = open_encoding(params.compute, workspace), params.evaluate.cutoffs
    questions = read_questions(workspace, max(cutoffs))
    identified = load_identified(workspace.existing("identifiers", "database"))
    ann.library()
    rankings.library()
    asked = questions.queries["sha256"].to_list()
    compared = approximate(params, workspace, identified, asked, encoding)
    rivals, kept = trained(params, workspace, questions, encoding, log)
    size = params.evaluate.batch_size
    pretrained = create_encoder(params.encoder, params.seed).eval().to(encoding.machine.device)
    exam = EvalConfig(
        questions=questions,
        cutoffs=cutoffs,
        batch_size=size,
        machine=encoding.machine,
        images=lambda: decode_pixels(pretrained, asked[: TIMED * size], encoding),
        nearest=methods.by_features(pretrained, workspace, asked, encoding),
    )
    places = workspace.stage("baselines"), workspace.reports / "baselines-latency.json"
    found = measure(compared | rivals, exam, identified.codes.numpy(), *places)
    for resume in kept:
        resume.clear()
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
    given = methods.vectors(models.embed, known), identified.embeddings
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
    params: Params, workspace: Workspace, questions: QuerySet, encoding: Encoding, log: Callable
) -> tuple[dict[str, Method], list[Resume]]:
    """Exact scans of descriptors trained on the tokenizer's training images, with its encoder's
    first weights, frozen or tuned as there; and the states to clear once all is written."""
    train = read_table(workspace.existing("catalog", "train.parquet"))
    frozen = None if params.tokenizer.tune_encoder else create_encoder(params.encoder, params.seed)
    models, kept, device = {}, [], encoding.machine.device
    for name, rival in rivals(params).items():
        settings = [flatten(part) for part in (params.encoder, params.augment, rival.settings)]
        inputs = [params.seed, params.tokenizer.tune_encoder, str(encoding.machine), train.rows()]
        kept.append(Resume(workspace.cache / "training", name, settings, inputs))
        place = encoding, kept[-1]
        models[name] = describe(params, train, (rival, frozen), place, _named(log, name))
    queries = embed_all(models, questions.queries, encoding)
    database = embed_all(models, questions.database, encoding)
    found = {
        name: methods.exact(
            methods.vectors(model, queries[name].to(device)),
            database[name].to(device),
            4 * database[name].shape[1],
        )
        for name, model in models.items()
    }
    return found, kept


def rivals(params: Params) -> dict[str, Rival]:
    """Those of the paper's tables, by name."""
    return {
        "cgd": Rival(
            params.baselines.cgd,
            rankings.combined,
            lambda encoder, n: Combined(encoder.token_width, n, params.baselines.cgd),
            tokens=True,
        ),
        "irt_r": Rival(
            params.baselines.irt_r,
            rankings.contrasted,
            lambda encoder, n: Projected(encoder.width, params.baselines.irt_r),
            tokens=False,
        ),
    }


def describe(
    params: Params,
    train: pl.DataFrame,
    who: tuple[Rival, ImageEncoder | None],
    place: tuple[Encoding, Resume],
    log: Callable,
) -> Described:
    """A rival trained on the images of ``train``; it reads pixels, whether or not its encoder was
    tuned. ``who`` = (the rival, the encoder if it is frozen); ``place`` = (where images are
    encoded, where the training's state is)."""
    (rival, frozen), (encoding, resume) = who, place
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
    run = encoding.machine, params.seed
    return teach((rival, encoder), frozen is None, (images, numbers), run, resume, log)


def teach(
    who: tuple[Rival, ImageEncoder],
    tuned: bool,
    data: tuple[EncodedViews | Pixels, Tensor],
    run: tuple[Machine, int],
    resume: Resume,
    log: Callable,
) -> Described:
    """A rival trained on ``data`` = (N images, their class numbers (N,), all of which occur); it
    reads pixels by the encoder that it comes with, whether or not that was ``tuned`` with it.
    ``run`` = (machine, seed)."""
    (rival, encoder), (machine, seed) = who, run
    torch.manual_seed(seed)
    head = rival.head(encoder, int(data[1].max()) + 1)
    model = Described(head, encoder if tuned else None)
    descriptors.train(model, data, (rival.losses, rival.settings), run, resume, log)
    return Described(head, encoder).to(machine.device).eval()


@torch.inference_mode()
def embed_all(
    models: dict[str, Described], table: pl.DataFrame, encoding: Encoding
) -> dict[str, Tensor]:
    """Each model's descriptors (N, D) of a table's images, on the CPU; always in full batches, so
    that an image's descriptor does not depend on the others. Models that share an encoder share
    what it makes of an image."""
    sizes = {"batch_size": encoding.settings.batch_size, "threads": encoding.settings.threads}
    sha256s, machine = table["sha256"].to_list(), encoding.machine
    parts: dict[str, list[Tensor]] = {name: [] for name in models}
    decoding = encoder_of(next(iter(models.values()))).decoding
    for batch in stream_pixels(encoding.images, sha256s, decoding, **sizes):
        rows, new = next(full_batches(len(batch), encoding.settings.batch_size))
        images = torch.from_numpy(batch[rows.numpy()]).to(machine.device)
        encoded: dict[ImageEncoder, tuple[Tensor, Tensor]] = {}
        for name, model in models.items():
            encoder = encoder_of(model)
            with machine.precision():
                if encoder not in encoded:
                    encoded[encoder] = encoder(images)
                parts[name].append(model.describe(*encoded[encoder])[:new].float().cpu())
    return {name: torch.cat(each) for name, each in parts.items()}


def encoder_of(model: Described) -> ImageEncoder:
    """The encoder of a model that reads pixels."""
    assert model.encoder is not None, "it reads pixels"
    return model.encoder


def _named(log: Callable, name: str) -> Callable:
    """``log`` with the method's name before each metric's."""

    def under(row: dict[str, float], step: int) -> None:
        log({f"{name}/{key}": value for key, value in row.items()}, step)

    return under
