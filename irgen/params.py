"""``params.yaml`` as frozen dataclasses, one a section, loaded strictly."""

import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from irgen.errors import ParamsError

GATED = ("precision", "precision_capped", "hit", "recall")  # metrics that a gate may go by


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how numbers are crunched; no setting here changes what is computed on purpose."""

    device: str  # auto, cpu, cuda, cuda:1 …
    precision: Literal["auto", "fp32", "bf16"]  # auto: bf16 where the hardware has it
    batch_size: int  # images an encoding batch
    threads: int  # decoding threads; 0: one a core


@dataclass(frozen=True, kw_only=True)
class Download:
    """Where images come from; credentials are the environment's alone."""

    source: str  # digits; a folder, .tar/.tar.gz/.zip or .csv/.parquet list; s3://…; http(s)://…
    max_gigabytes: float  # refuse archives that unpack to more
    sha256: str  # of an archive or list at a URL, which then is this one for ever; "": any
    endpoint: str  # http(s)://… of an S3 service other than Amazon's; "": what AWS's settings say
    requester_pays: bool  # agree to pay for reading the bucket
    customer_key: bool  # objects are encrypted with the key in IRGEN_SSE_CUSTOMER_KEY
    connections: int  # to a bucket or server at once
    retries: int  # of a call or download that fails; twelve in a row take about a minute


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
    query_fraction: float  # of each label, where the source names no roles
    validation_fraction: float  # of each label's training images, where the source names none
    database: tuple[
        Literal["train", "validation", "query"], ...
    ]  # searched roles, if no protocol's
    inserted_fraction: float  # of each label's training images that only the database gets
    training_revision: int  # images first seen later join the database only


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Any timm backbone."""

    name: str
    weights: str  # hub, none, or the path of a safetensors file
    image_size: int
    channels: Literal[1, 3]
    crop: float  # share of the resized short side that the centre crop keeps; timm's is often 0.875
    options: dict[str, Any]  # handed to timm.create_model


@dataclass(frozen=True, kw_only=True)
class Pairs:
    rule: Literal["near_same_label", "near", "same_label"]
    neighbours: int  # positives an anchor


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Ranges of the random changes a training image goes through; 0 turns one off."""

    views: int  # a frozen encoder's cached views of an image: the plain one, then changed ones
    scale: float  # zoom in by up to this share of the side, and stretch by up to half of it
    rotate: float  # degrees either way
    shear: float  # degrees either way
    shift: float  # share of the side either way
    flip: bool  # left-right
    colour: float  # brightness and contrast, share either way
    erase: float  # chance of a blank rectangle


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    levels: int  # M
    codebook: int  # L
    width: int  # D of the tuned embedding
    hidden: int  # width of the adapter's hidden layer; 0: a linear map
    dropout: float
    tune_encoder: bool
    epochs: int
    batch_size: int
    learning_rate: float
    encoder_learning_rate: float
    layer_decay: float  # learning-rate factor from one encoder block to the one below it
    weight_decay: float
    warmup_epochs: int
    label_smoothing: float
    temperature: float  # of the cosine classifier: logits are cosines divided by it
    prefix_weight: float  # λ1, of the prefixes' mean cross-entropy
    residual_weight: float  # λ2, of the prefixes' mean relative residual
    refit_epochs: int  # codebooks, and clusters that stand for labels, are renewed this often
    kmeans_iterations: int
    labels: Literal["given", "clusters"]  # whose classes teach; clusters: no label is looked at
    clusters: int  # their number, where labels: clusters


@dataclass(frozen=True, kw_only=True)
class Identifiers:
    """By what rule images get their codes. Any other than semantic is there to be compared with:
    what is served codes new images by the tokenizer."""

    rule: Literal["semantic", "random", "hierarchical_kmeans", "rqvae"]
    rqvae_hidden: int  # width of the autoencoder's hidden layers
    rqvae_width: int  # of what its codebooks quantise
    rqvae_epochs: int
    rqvae_batch_size: int
    rqvae_learning_rate: float
    rqvae_commitment: float  # weight of the encoder's pull towards its entries


@dataclass(frozen=True, kw_only=True)
class Retriever:
    encoder: Literal["pretrained", "tokenizer"]  # whose encoder reads the query
    tune_encoder: bool
    width: int
    layers: int
    heads: int
    dropout: float
    epochs: int
    batch_size: int
    learning_rate: float
    encoder_learning_rate: float
    layer_decay: float
    weight_decay: float
    warmup_epochs: int
    label_smoothing: float
    gradient_clip: float
    ema_decay: float
    validate_every: int  # epochs
    patience: int  # validations without a gain before training stops


@dataclass(frozen=True, kw_only=True)
class Index:
    """What a search of the index does unless told otherwise, beside ``evaluate.beams`` and
    ``evaluate.candidates``."""

    fresh_beams: int  # beams towards images the retriever was not trained on; 0: none


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    cutoffs: tuple[int, ...]  # k of precision@k …
    beams: int  # W
    candidates: int  # most images gathered from the beams, at least the largest cut-off
    fuse: float  # weight of the first entry's log-probability beside the cosine, in re-ranking
    fuse_by: Literal["entry", "label"]  # that it is written, or that the query carries its label
    order_by: Literal["identifier", "entry"]  # without re-ranking: all that is written, or its first
    batch_size: int  # queries a search batch
    trie: bool  # false: identifiers are written freely, and those that do not exist find nothing


@dataclass(frozen=True, kw_only=True)
class Hnsw:
    """A graph over the tuned embeddings, by faiss."""

    links: int  # of an image to others, half as many as on the lowest layer
    build: int  # efConstruction: images looked at when one is added
    search: int  # efSearch: images looked at when one is searched for


@dataclass(frozen=True, kw_only=True)
class IvfPq:
    """Inverted lists of compressed tuned embeddings, by faiss."""

    lists: int  # at most; fewer where the database is too small to train so many
    probes: int  # lists read a query
    code_bytes: int  # an image at most; the largest number that divides tokenizer.width


@dataclass(frozen=True, kw_only=True)
class Scann:
    """ScaNN over the tuned embeddings or, where it is not installed, what in faiss is like it."""

    lists: int
    probes: int
    part: int  # dimensions that share one four-bit code
    anisotropy: float  # threshold of its loss; nothing in faiss is like it
    reranked: int  # candidates scored exactly


@dataclass(frozen=True, kw_only=True)
class Spann:
    """What in faiss is like SPANN, over the tuned embeddings."""

    heads: float  # centroids, as a share of the database
    copies: int  # lists an image is in, at most
    closure: float  # how much further than its nearest centroid another may be to get a copy
    probes: int


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What trained descriptors share. Whether the encoder is tuned says ``tokenizer``."""

    width: int  # D
    epochs: int
    batch_size: int
    per_label: int  # images of a label that come together in a batch
    learning_rate: float
    encoder_learning_rate: float
    layer_decay: float
    weight_decay: float
    warmup_epochs: int


@dataclass(frozen=True, kw_only=True)
class Cgd(Descriptor):
    """Combination of Multiple Global Descriptors (arXiv 1903.10663)."""

    margin: float  # of the triplet loss, between distances of unit vectors
    label_smoothing: float  # of the auxiliary classification loss
    temperature: float
    class_weight: float  # of that loss beside the triplet loss


@dataclass(frozen=True, kw_only=True)
class Irt(Descriptor):
    """Training Vision Transformers for Image Retrieval (arXiv 2102.05644)."""

    hidden: int  # width of the head's hidden layer; 0: a linear map
    dropout: float
    margin: float  # cosine from which on another label's image is pushed away
    koleo: float  # weight of the differential-entropy regulariser


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

    minimum_images: int  # fewer new images than this are never called drift
    minimum_share: float  # nor fewer than this share of the training images
    minimum_held_out: int  # fewer held-out images, old or new queries than this tell nothing
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
    margin: float  # how much worse than the served index it may be
    minimum: float  # what a first index has to reach, and one that is worse at all has to keep


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is kept of the indexes that were published, and where else they go."""

    keep: int  # how many of the newest stay, beside the champion and the one it took the place of
    remote: str  # s3://bucket/prefix that releases are copied to; '': nowhere
    endpoint: str  # of an S3 store that is not AWS's; '': boto3's own choice
    model: str  # the name of the registered model in MLflow; '': none is registered
    max_model_megabytes: int  # a larger index goes to MLflow as a pointer to where it is


@dataclass(frozen=True, kw_only=True)
class Report:
    gallery: int  # queries shown
    confusions: int  # label pairs shown


@dataclass(frozen=True, kw_only=True)
class Tracking:
    experiment: str
    max_artifact_megabytes: int  # larger files are logged as a pointer with their digest


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


def load(path: Path) -> Params:
    """Reads ``params.yaml``. Raises ParamsError naming section, key and remedy; never guesses."""
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    params = parse(Params, tree, where=path.name)
    check_ranges(params)
    return params


def parse(kind: Any, value: Any, *, where: str) -> Any:
    """``value`` as ``kind``, a dataclass or the type of one of its fields; strict, no conversion
    but int → float and list → tuple."""
    if dataclasses.is_dataclass(kind):
        return _parse_section(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            allowed = ", ".join(map(str, arguments))
            raise ParamsError(f"{where}: {value!r} is not allowed; choose one of {allowed}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ParamsError(f"{where}: expected a list, found {value!r}")
        return tuple(
            parse(arguments[0], item, where=f"{where}[{i}]") for i, item in enumerate(value)
        )
    if origin in (dict, types.MappingProxyType):
        if not isinstance(value, dict):
            raise ParamsError(f"{where}: expected a mapping, found {value!r}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ParamsError(f"{where}: expected {kind.__name__}, found {value!r}{_hint(kind, value)}")
    if value != value:  # only nan is not itself
        raise ParamsError(f"{where}: expected a number, found nan")
    return value


def _hint(kind: Any, value: Any) -> str:
    if kind is float and isinstance(value, str):
        return " (YAML reads 1e-3 as text: write 1.0e-3)"
    return ""


def _parse_section(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ParamsError(f"{where}: expected a section with keys, found {value!r}")
    fields = typing.get_type_hints(kind)
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(fields)}"
            raise ParamsError(f"{where}: unknown key {key!r}; {hint}")
    for key in fields:
        if key not in value:
            raise ParamsError(f"{where}: key {key!r} is missing (expected {_name(fields[key])})")
    return kind(**{key: parse(fields[key], value[key], where=f"{where}: {key}") for key in fields})


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def check_ranges(params: Params) -> None:
    """Raises ParamsError for a value that has the right type but makes no sense."""
    lists = {
        "catalog: database": params.catalog.database,
        "evaluate: cutoffs": params.evaluate.cutoffs,
    }
    for where, values in lists.items():
        if not values:
            raise ParamsError(f"params.yaml: {where}: give at least one value, found an empty list")
    rules = [
        ("compute: batch_size", params.compute.batch_size, 1, None),
        ("download: connections", params.download.connections, 1, 256),
        ("download: retries", params.download.retries, 0, 100),
        ("catalog: query_fraction", params.catalog.query_fraction, 0, 0.9),
        ("catalog: validation_fraction", params.catalog.validation_fraction, 0, 0.9),
        ("catalog: inserted_fraction", params.catalog.inserted_fraction, 0, 0.9),
        ("encoder: image_size", params.encoder.image_size, 4, None),
        ("encoder: crop", params.encoder.crop, 0.1, 1),
        ("augment: views", params.augment.views, 1, None),
        ("pairs: neighbours", params.pairs.neighbours, 1, None),
        ("tokenizer: levels", params.tokenizer.levels, 1, 16),
        ("tokenizer: codebook", params.tokenizer.codebook, 2, 65536),
        ("tokenizer: epochs", params.tokenizer.epochs, 1, None),
        ("tokenizer: refit_epochs", params.tokenizer.refit_epochs, 1, None),
        ("tokenizer: prefix_weight", params.tokenizer.prefix_weight, 0, None),
        ("tokenizer: residual_weight", params.tokenizer.residual_weight, 0, None),
        ("tokenizer: clusters", params.tokenizer.clusters, 2, None),
        ("identifiers: rqvae_hidden", params.identifiers.rqvae_hidden, 1, None),
        ("identifiers: rqvae_width", params.identifiers.rqvae_width, 1, None),
        ("identifiers: rqvae_epochs", params.identifiers.rqvae_epochs, 1, None),
        ("identifiers: rqvae_batch_size", params.identifiers.rqvae_batch_size, 1, None),
        ("identifiers: rqvae_commitment", params.identifiers.rqvae_commitment, 0, None),
        ("retriever: epochs", params.retriever.epochs, 1, None),
        ("retriever: validate_every", params.retriever.validate_every, 1, None),
        ("retriever: patience", params.retriever.patience, 1, None),
        ("retriever: ema_decay", params.retriever.ema_decay, 0, 0.99999),
        ("index: fresh_beams", params.index.fresh_beams, 0, None),
        ("evaluate: beams", params.evaluate.beams, 1, None),
        ("evaluate: cutoffs", min(params.evaluate.cutoffs), 1, None),
        ("evaluate: fuse", params.evaluate.fuse, 0, 10),
        ("evaluate: candidates", params.evaluate.candidates, max(params.evaluate.cutoffs), None),
        ("baselines: hnsw: links", params.baselines.hnsw.links, 2, None),
        ("baselines: hnsw: build", params.baselines.hnsw.build, 1, None),
        (
            "baselines: hnsw: search",
            params.baselines.hnsw.search,
            max(params.evaluate.cutoffs),
            None,
        ),
        ("baselines: ivf_pq: lists", params.baselines.ivf_pq.lists, 1, None),
        ("baselines: ivf_pq: probes", params.baselines.ivf_pq.probes, 1, None),
        ("baselines: ivf_pq: code_bytes", params.baselines.ivf_pq.code_bytes, 1, None),
        ("baselines: scann: lists", params.baselines.scann.lists, 1, None),
        ("baselines: scann: probes", params.baselines.scann.probes, 1, None),
        ("baselines: scann: part", params.baselines.scann.part, 1, None),
        (
            "baselines: scann: reranked",
            params.baselines.scann.reranked,
            max(params.evaluate.cutoffs),
            None,
        ),
        ("baselines: spann: copies", params.baselines.spann.copies, 1, None),
        ("baselines: spann: probes", params.baselines.spann.probes, 1, None),
        ("baselines: spann: heads", params.baselines.spann.heads, 0, 1),
        ("baselines: spann: closure", params.baselines.spann.closure, 0, None),
        ("baselines: cgd: width", params.baselines.cgd.width, 3, None),
        ("baselines: cgd: epochs", params.baselines.cgd.epochs, 1, None),
        ("baselines: cgd: batch_size", params.baselines.cgd.batch_size, 2, None),
        (
            "baselines: cgd: per_label",
            params.baselines.cgd.per_label,
            2,
            params.baselines.cgd.batch_size,
        ),
        ("baselines: irt_r: width", params.baselines.irt_r.width, 1, None),
        ("baselines: irt_r: epochs", params.baselines.irt_r.epochs, 1, None),
        ("baselines: irt_r: batch_size", params.baselines.irt_r.batch_size, 2, None),
        (
            "baselines: irt_r: per_label",
            params.baselines.irt_r.per_label,
            2,
            params.baselines.irt_r.batch_size,
        ),
        ("drift: minimum_images", params.drift.minimum_images, 1, None),
        ("drift: minimum_share", params.drift.minimum_share, 0, None),
        ("drift: minimum_held_out", params.drift.minimum_held_out, 1, None),
        ("gate: margin", params.gate.margin, 0, 1),
        ("gate: minimum", params.gate.minimum, 0, 1),
        ("release: keep", params.release.keep, 1, None),
        ("release: max_model_megabytes", params.release.max_model_megabytes, 0, None),
    ]
    for where, value, low, high in rules:
        if value < low or (high is not None and value > high):
            allowed = f"at least {low}" if high is None else f"from {low} to {high}"
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


def flatten(section: Any, prefix: str = "") -> dict[str, Any]:
    """A section as a flat mapping of dotted keys to plain values, for tracking and digests."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{field.name}.")
        else:
            flat[f"{prefix}{field.name}"] = list(value) if isinstance(value, tuple) else value
    return flat
