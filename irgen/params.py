"""``params.yaml`` as frozen dataclasses, one a section, loaded strictly."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from irgen.errors import ParamsError
from irgen.typed import Range, parse

GATED = ("precision", "precision_capped", "hit", "recall")  # metrics that a gate may go by

Size = Annotated[int, Range(1)]
Number = Annotated[int, Range(0)]
Pair = Annotated[int, Range(2)]  # two at least
Weight = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Temperature = Annotated[float, Range(0.001)]
Split = Annotated[float, Range(0, 0.9)]  # of images that are put aside: some must be left


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how numbers are crunched; no setting here changes what is computed on purpose."""

    device: str  # auto, cpu, cuda, cuda:1 …
    precision: Literal["auto", "fp32", "bf16"]  # auto: bf16 where the hardware has it
    batch_size: Size  # images an encoding batch
    threads: Number  # decoding threads; 0: one a core


@dataclass(frozen=True, kw_only=True)
class Download:
    """Where images come from; credentials are the environment's alone."""

    source: str  # digits; a folder, .tar/.tar.gz/.zip or .csv/.parquet list; s3://…; http(s)://…
    max_gigabytes: Weight  # refuse archives that unpack to more
    sha256: str  # of an archive or list at a URL, which then is this one for ever; "": any
    endpoint: str  # http(s)://… of an S3 service other than Amazon's; "": what AWS's settings say
    requester_pays: bool  # agree to pay for reading the bucket
    customer_key: bool  # objects are encrypted with the key in IRGEN_SSE_CUSTOMER_KEY
    connections: Annotated[int, Range(1, 256)]  # to a bucket or server at once
    retries: Annotated[int, Range(0, 100)]  # of a call that fails; twelve take about a minute


Format = Literal[
    "auto",
    "folders",
    "images",
    "list",
    "inshop",
    "cub200",
    "cars196",
    "imagenet",
    "places365",
    "products",
    "omniglot",
]


@dataclass(frozen=True, kw_only=True)
class Catalog:
    format: Format  # auto: by what the source holds
    protocol: Literal["given", "irgen", "standard"]  # given: as the source or publisher splits it
    leaks: Literal["report", "refuse"]  # queries that are trained on or searched; refuse: stop
    query_fraction: Split  # of each label, where the source names no roles
    validation_fraction: Split  # of each label's training images, where the source names none
    database: tuple[
        Literal["train", "validation", "query"], ...
    ]  # searched roles, if no protocol's
    inserted_fraction: Split  # of each label's training images that only the database gets
    training_revision: int  # of training.yaml: images first seen later join the database only


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Any timm backbone."""

    name: str
    weights: str  # hub, none, or the path of a safetensors file
    image_size: Annotated[int, Range(4)]
    channels: Literal[1, 3]
    crop: Annotated[float, Range(0.1, 1)]  # share of the resized short side that is kept
    options: dict[str, Any]  # handed to timm.create_model


@dataclass(frozen=True, kw_only=True)
class Pairs:
    rule: Literal["near_same_label", "near", "same_label"]
    neighbours: Size  # positives an anchor


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Ranges of the random changes a training image goes through; 0 turns one off."""

    views: Size  # a frozen encoder's cached views of an image: the plain one, then changed ones
    scale: float  # zoom in by up to this share of the side, and stretch by up to half of it
    rotate: float  # degrees either way
    shear: float  # degrees either way
    shift: float  # share of half the side either way
    flip: bool  # left-right
    colour: float  # brightness and contrast, share either way
    erase: Share  # chance of a blank rectangle


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    levels: Annotated[int, Range(1, 16)]  # M
    codebook: Annotated[int, Range(2, 65536)]  # L
    width: Size  # D of the tuned embedding
    hidden: Number  # width of the adapter's hidden layer; 0: a linear map
    dropout: Share
    tune_encoder: bool
    epochs: Size
    batch_size: Size
    learning_rate: Weight
    encoder_learning_rate: Weight
    layer_decay: Share  # learning-rate factor from one encoder block to the one below it
    weight_decay: Weight
    warmup_epochs: Number
    label_smoothing: Share
    temperature: Temperature  # of the cosine classifier: logits are cosines divided by it
    prefix_weight: Weight  # λ1, of the prefixes' mean cross-entropy
    residual_weight: Weight  # λ2, of the prefixes' mean relative residual
    refit_epochs: Size  # codebooks, and clusters that stand for labels, are renewed this often
    kmeans_iterations: Number
    labels: Literal["given", "clusters"]  # whose classes teach; clusters: no label is looked at
    clusters: Pair  # their number, where labels: clusters


@dataclass(frozen=True, kw_only=True)
class Identifiers:
    """By what rule images get their codes. Any other than semantic is there to be compared with:
    what is served codes new images by the tokenizer."""

    rule: Literal["semantic", "random", "hierarchical_kmeans", "rqvae"]
    rqvae_hidden: Size  # width of the autoencoder's hidden layers
    rqvae_width: Size  # of what its codebooks quantise
    rqvae_epochs: Size
    rqvae_batch_size: Size
    rqvae_learning_rate: Weight
    rqvae_commitment: Weight  # weight of the encoder's pull towards its entries


@dataclass(frozen=True, kw_only=True)
class Retriever:
    encoder: Literal["pretrained", "tokenizer"]  # whose encoder reads the query
    tune_encoder: bool
    width: Size
    layers: Size
    heads: Size
    dropout: Share
    epochs: Size
    batch_size: Size
    learning_rate: Weight
    encoder_learning_rate: Weight
    layer_decay: Share
    weight_decay: Weight
    warmup_epochs: Number
    label_smoothing: Share
    gradient_clip: Weight
    ema_decay: Annotated[float, Range(0, 0.99999)]
    validate_every: Size  # epochs
    patience: Size  # validations without a gain before training stops


@dataclass(frozen=True, kw_only=True)
class Index:
    """What a search of the index does unless told otherwise, beside ``evaluate.beams`` and
    ``evaluate.candidates``."""

    fresh_beams: Number  # beams towards images the retriever was not trained on; 0: none


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    cutoffs: tuple[Size, ...]  # k of precision@k …
    beams: Size  # W
    candidates: Size  # most images gathered from the beams, at least the largest cut-off
    rerank_weight: Annotated[
        float, Range(0, 10)
    ]  # weight of the first entry's logarithm in re-ranking
    rerank_signal: Literal[
        "entry", "label", "both"
    ]  # written; its label read; mean of label and written
    order_by: Literal["identifier", "entry", "label"]  # how images stand that are not re-ranked
    batch_size: Size  # queries a search batch
    trie: bool  # false: identifiers are written freely, and those that do not exist find nothing


@dataclass(frozen=True, kw_only=True)
class Hnsw:
    """A graph over the tuned embeddings, by faiss."""

    links: Pair  # of an image to others, half as many as on the lowest layer
    build: Size  # efConstruction: images looked at when one is added
    search: Size  # efSearch: images looked at when one is searched for


@dataclass(frozen=True, kw_only=True)
class IvfPq:
    """Inverted lists of compressed tuned embeddings, by faiss."""

    lists: Size  # at most; fewer where the database is too small to train so many
    probes: Size  # lists read a query
    code_bytes: Size  # an image at most; the largest number that divides tokenizer.width


@dataclass(frozen=True, kw_only=True)
class Scann:
    """ScaNN over the tuned embeddings or, where it is not installed, what in faiss is like it."""

    lists: Size
    probes: Size
    part: Size  # dimensions that share one four-bit code
    anisotropy: float  # threshold of its loss; nothing in faiss is like it
    reranked: Size  # candidates scored exactly


@dataclass(frozen=True, kw_only=True)
class Spann:
    """What in faiss is like SPANN, over the tuned embeddings."""

    heads: Share  # centroids, as a share of the database
    copies: Size  # lists an image is in, at most
    closure: Weight  # how much further than its nearest centroid another may be to get a copy
    probes: Size


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What trained descriptors share. Whether the encoder is tuned says ``tokenizer``."""

    width: Size  # D
    hidden: Number  # width of the head's hidden layer; 0: a linear map
    dropout: Share  # before each of its layers
    epochs: Size
    batch_size: Pair
    per_label: Pair  # images of a label that come together in a batch
    learning_rate: Weight
    encoder_learning_rate: Weight
    layer_decay: Share
    weight_decay: Weight
    warmup_epochs: Number


@dataclass(frozen=True, kw_only=True)
class Cgd(Descriptor):
    """Combination of Multiple Global Descriptors (arXiv 1903.10663)."""

    margin: float  # of the triplet loss, between distances of unit vectors
    label_smoothing: Share  # of the auxiliary classification loss
    temperature: Temperature
    class_weight: Weight  # of that loss beside the triplet loss


@dataclass(frozen=True, kw_only=True)
class Irt(Descriptor):
    """Training Vision Transformers for Image Retrieval (arXiv 2102.05644)."""

    margin: float  # cosine from which on another label's image is pushed away
    koleo: Weight  # weight of the differential-entropy regulariser


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """The methods that the paper compares with; asked and judged as ``evaluate`` says."""

    hnsw: Hnsw
    ivf_pq: IvfPq
    scann: Scann
    spann: Spann
    cgd: Cgd
    irt_r: Irt


@dataclass(frozen=True, kw_only=True)
class Drift:
    """When images that came after the training are too unlike those it knew: the most that is
    allowed of each signal. "Held out" are validation images and queries of the training's time:
    nothing was trained on them, so that what they show is no drift. What was measured to choose the
    limits is in ``irgen.evaluation.limits``."""

    minimum_images: Size  # fewer new images than this are never called drift
    minimum_share: Weight  # nor fewer than this share of the training images
    minimum_held_out: Size  # fewer held-out images, old or new queries than this tell nothing
    residual_ratio: float  # what the codes leave over of new images / of held-out images
    unseen_entries: float  # share with a codebook entry that no training image has
    unseen_prefixes: float  # share whose code begins as no training image's, less held-out's share
    unseen_labels: float  # share with a label that no training image has
    bucket_growth: float  # growth of the bucket that a random image lies in / of the database
    collisions: float  # share with the code of another label's image, less held-out's share
    precision_drop: float  # precision_capped of old queries less that of new ones


@dataclass(frozen=True, kw_only=True)
class Gate:
    """When a new index may take the place of the one that is served. Trainings that
    differ by their seed alone spread by 0.003 to 0.006 in precision/10, and 60 digits of unknown
    classes among 1,200 cost the queries of known ones 0.018."""

    metric: str  # precision/10 and so on: precision, precision_capped, hit or recall at a cut-off
    margin: Share  # how much worse than the served index it may be
    minimum: Share  # what a first index has to reach, and one that is worse at all has to keep


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is kept of the indexes that were published, and where else they go."""

    keep: Size  # how many of the newest stay, beside the champion and the one it took the place of
    remote: str  # s3://bucket/prefix that releases are copied to; '': nowhere
    endpoint: str  # of an S3 store that is not AWS's; '': boto3's own choice
    model: str  # the name of the registered model in MLflow; '': none is registered
    max_model_megabytes: Number  # a larger index goes to MLflow as a pointer to where it is


@dataclass(frozen=True, kw_only=True)
class Report:
    gallery: Number  # queries shown
    confusions: Number  # label pairs shown


@dataclass(frozen=True, kw_only=True)
class Tracking:
    experiment: str
    max_artifact_megabytes: Number  # larger files are logged as a pointer with their digest


@dataclass(frozen=True, kw_only=True)
class Params:
    seed: int
    compute: Compute
    download: Download
    catalog: Catalog
    encoder: Encoder
    augment: Augment
    pairs: Pairs
    tokenizer: Tokenizer
    identifiers: Identifiers
    retriever: Retriever
    index: Index
    evaluate: Evaluate
    baselines: Baselines
    drift: Drift
    gate: Gate
    release: Release
    report: Report
    tracking: Tracking


@dataclass(frozen=True, kw_only=True)
class _Training:
    revision: int


TRAINING_FILE = "training.yaml"


def load(path: Path) -> Params:
    """Reads ``params.yaml``. Raises ParamsError naming section, key and remedy; never guesses."""
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    _set_training_revision(tree, path)
    params = parse(Params, tree, where=path.name)
    check(params)
    return params


def _set_training_revision(tree: Any, path: Path) -> None:
    """Set ``catalog.training_revision`` from the file beside ``path``. Raises ParamsError if both
    files set it."""
    revision = read_training_revision(path.parent)
    catalog = tree.get("catalog") if isinstance(tree, dict) else None
    if isinstance(catalog, dict):
        if revision is not None and "training_revision" in catalog:
            raise ParamsError(
                f"{path.name}: catalog: training_revision: {TRAINING_FILE} sets it: delete this key"
            )
        catalog.setdefault("training_revision", 1 if revision is None else revision)


def read_training_revision(root: Path) -> int | None:
    """Return ``revision`` of ``training.yaml`` in the project's folder; None without such a file.
    Raises ParamsError if it holds anything but a whole number."""
    path = root / TRAINING_FILE
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return parse(_Training, tree, where=TRAINING_FILE).revision


def check(params: Params) -> None:
    """Raises ParamsError for values that are right each by itself and make no sense together."""
    evaluate, made = params.evaluate, params.baselines
    for where, values in (
        ("catalog: database", params.catalog.database),
        ("evaluate: cutoffs", evaluate.cutoffs),
    ):
        if not values:
            raise ParamsError(f"params.yaml: {where}: give at least one value, found an empty list")
    shown = Range(max(evaluate.cutoffs))
    for where, value, allowed in (
        ("evaluate: candidates", evaluate.candidates, shown),
        ("baselines: hnsw: search", made.hnsw.search, shown),
        ("baselines: scann: reranked", made.scann.reranked, shown),
        ("baselines: cgd: width", made.cgd.width, Range(3)),  # three descriptors, side by side
        ("baselines: cgd: per_label", made.cgd.per_label, Range(2, made.cgd.batch_size)),
        ("baselines: irt_r: per_label", made.irt_r.per_label, Range(2, made.irt_r.batch_size)),
    ):
        if value not in allowed:
            raise ParamsError(f"params.yaml: {where}: {value} is out of range; allowed: {allowed}")
    if not re.fullmatch(r"([0-9a-fA-F]{64})?", params.download.sha256):
        raise ParamsError(
            f"params.yaml: download: sha256: {params.download.sha256!r} is not one: 64 hexadecimal "
            "digits, or ''"
        )
    if params.retriever.width % params.retriever.heads:
        raise ParamsError(
            f"params.yaml: retriever: width {params.retriever.width} must be a multiple of "
            f"heads {params.retriever.heads}"
        )
    known = [f"{name}/{k}" for name in GATED for k in params.evaluate.cutoffs]
    if params.gate.metric not in known:
        raise ParamsError(
            f"params.yaml: gate: metric: {params.gate.metric!r} is not measured; allowed: "
            f"{', '.join(known)}"
        )
