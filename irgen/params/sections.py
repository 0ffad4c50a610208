"""Settings of every stage but ``baselines``: one frozen dataclass for each section."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from irgen.params.fields import (
    STRICT,
    Angle,
    Batch,
    Clip,
    Cosine,
    Cutoff,
    Dropout,
    Hidden,
    Layers,
    Number,
    Pair,
    Rate,
    Share,
    Size,
    Split,
    Temperature,
    Weight,
    Width,
    param,
    required,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Compute:
    """Device and precision of computations, and the machines that do them."""

    engine: Literal["local", "ray"] = param("local", "ray: a Ray cluster encodes images and trains")
    address: str = param(
        "", "Ray cluster: auto, or host:port of its head; empty: one is started on this machine"
    )
    device: str = param("auto", "auto, cpu, cuda, cuda:1 …")
    precision: Literal["auto", "fp32", "bf16"] = param("fp32", "auto: bf16 if the hardware has it")
    batch_size: Batch = param(256, "images in a batch when images are encoded")
    threads: Annotated[int, Field(ge=0, le=1024)] = param(
        0, "threads that decode images; 0: one per core"
    )
    workers: Annotated[int, Field(ge=0, le=1024)] = param(
        0, "processes of a training; 0: one per GPU, of the machine or the cluster; one without"
    )
    pixels_gigabytes: Weight = param(
        4.0, "memory for decoded images of an encoder that is trained; others are decoded each time"
    )
    views_gigabytes: Weight = param(
        100.0, "disk for cached views of a frozen encoder; others are encoded each time"
    )


Kind = Literal["text", "integer", "number", "boolean", "date", "datetime", "time"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Download:
    """Source of the images. Credentials come from the environment only."""

    source: str = required(
        "digits; a folder, .tar, .tar.gz, .zip, .csv or .parquet; or one at s3://… or https://…"
    )
    captions: str = param(
        "",
        "CSV or Parquet file with texts of the images, named by a column id, path or label; "
        "empty: none",
    )
    ignore: tuple[str, ...] = param(
        (),
        "files and folders to leave out, as in a .gitignore, besides @eaDir, #recycle, .git and "
        "the like; !pattern takes one back",
    )
    name_encoding: str = param(
        "auto", "encoding of names in an archive that are not UTF-8, e.g. cp932, gbk"
    )
    max_gigabytes: Weight = param(50.0, "refuse archives that unpack to more")
    sha256: str = param("", "expected digest of an archive or list at a URL; empty: any")
    columns: dict[str, Kind] = param(
        {}, "types of columns of a list: text, integer, number, boolean, date, datetime or time"
    )
    endpoint: str = param("", "URL of an S3 service other than Amazon's; empty: as AWS is set up")
    requester_pays: bool = param(False, "agree to pay for reading the bucket")
    customer_key: bool = param(False, "objects are encrypted with IRGEN_SSE_CUSTOMER_KEY")
    outside: bool = param(
        False, "let a list name files of this machine outside of the list's folder"
    )
    max_unreadable: Share = param(
        0.2, "share of the images that may be unreadable; above it nothing is changed"
    )
    connections: Annotated[int, Field(ge=1, le=256)] = param(8, "connections open at once")
    retries: Annotated[int, Field(ge=0, le=100)] = param(
        12, "retries of a failed request; twelve take about a minute"
    )
    most_removed: Share = param(
        0.2, "share of the images that may go without irgen release --accept-removals; 1: all"
    )


Published = Literal["inshop", "cub200", "cars196", "imagenet", "places365", "products", "omniglot"]
Format = Literal["auto", "folders", "images", "list"] | Published
Role = Literal["train", "validation", "query"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Catalog:
    """Format, labels and roles of the images."""

    format: Format = param("auto", "layout of the source; auto: found from its files")
    protocol: Literal["given", "irgen", "standard"] = param(
        "given", "split of a published set; given: as its publisher splits it"
    )
    leaks: Literal["report", "refuse"] = param(
        "report", "what to do about queries that are also training images"
    )
    query_fraction: Split = param(
        0.2, "share of each label that measures quality, without given roles"
    )
    validation_fraction: Split = param(0.1, "share of each label's training images for validation")
    database: Annotated[tuple[Role, ...], Field(min_length=1)] = param(
        ("train", "validation", "query"), "roles that can be found, unless the protocol decides"
    )
    inserted_fraction: Split = param(
        0.0, "share of each label's training images that join only the database, as if added later"
    )
    inserted_labels: Split = param(
        0.0, "share of the labels whose images join only the database, as if added later"
    )
    training_revision: Number = param(
        1, "newest revision that is trained on, as training.yaml says"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Encoder:
    """Pretrained image encoder: any timm backbone."""

    name: str = required("name of a timm model")
    weights: str = required("hub, none (train from scratch) or the path of a safetensors file")
    image_size: Annotated[int, Field(ge=4, le=4096)] = required("side of the input image in pixels")
    channels: Literal[1, 3] = param(3, "1: grey, 3: colour")
    crop: Annotated[float, Field(ge=0.1, le=1)] = param(
        1.0, "share of the resized short side that is kept"
    )
    grid: Annotated[int, Field(ge=0, le=64)] = param(
        0, "side of a grid of means that stand for an image's tokens; 0: all tokens"
    )
    options: dict[str, Any] = param({}, "more arguments of timm.create_model")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Augment:
    """Random changes of training images; 0 turns one off."""

    views: Annotated[int, Field(ge=1, le=1000)] = param(
        1, "cached views per image for a frozen encoder; the first is unchanged"
    )
    scale: Split = param(0.15, "largest zoom, as a share of the side")
    rotate: Angle = param(10.0, "largest rotation in degrees")
    shear: Annotated[float, Field(ge=0, le=80)] = param(5.0, "largest shear in degrees")
    shift: Share = param(0.1, "largest shift, as a share of half the side")
    flip: bool = param(False, "mirror left and right")
    colour: Share = param(0.0, "largest change of brightness and contrast, as a share")
    erase: Share = param(0.0, "chance that a rectangle is blanked")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pairs:
    """Rule for the matching images that the retriever is trained on."""

    rule: Literal["near_same_label", "near", "same_label"] = param(
        "near_same_label", "nearest with the same label, nearest of any, or any of the same label"
    )
    neighbours: Annotated[int, Field(ge=1, le=10_000)] = param(20, "matches per image")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Training:
    """Settings that all trainings share."""

    steps: Size = param(600, "most gradient steps")
    warmup: Share = param(0.07, "share of the steps in which the learning rate rises")
    batch_size: Batch = param(64, "images per gradient step")
    learning_rate: Rate = param(1e-3, "learning rate of all but the encoder")
    encoder_learning_rate: Rate = param(1e-3, "learning rate of the encoder's last block")
    layer_decay: Share = param(1.0, "learning-rate factor from one encoder block to the one below")
    weight_decay: Weight = param(0.05, "weight decay")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tokenizer(Training):
    """Semantic tokenizer: encoder, adapter and residual quantizer."""

    levels: Annotated[int, Field(ge=1, le=16)] = param(4, "codes per image (M)")
    codebook: Annotated[int, Field(ge=2, le=65536)] = param(32, "codes per codebook (L)")
    width: Width = param(64, "width of the embedding (D)")
    pretrained_width: Hidden = param(
        0, "how much of it keeps what a frozen encoder sees; 0: all of it is trained"
    )
    hidden: Hidden = param(0, "width of the adapter's hidden layer; 0: a linear map")
    dropout: Dropout = param(0.0, "dropout in the adapter")
    tune_encoder: bool = param(True, "train the encoder too")
    tuned_size: Annotated[int, Field(ge=0, le=4096)] = param(
        0, "side in pixels of the images that train the encoder; 0: encoder.image_size"
    )
    probe_steps: Number = param(
        0, "most gradient steps of all but the encoder before it is tuned, and again after; 0: none"
    )
    validate_every: Size = param(40, "steps between two validations, or a pass if that is longer")
    patience: Size = param(5, "validations without improvement before training stops")
    label_smoothing: Dropout = param(0.1, "label smoothing of the classification losses")
    temperature: Temperature = param(0.1, "temperature of the cosine classifier")
    prefix_weight: Weight = param(1.0, "λ1: weight of the prefixes' mean cross-entropy")
    residual_weight: Weight = param(1.0, "λ2: weight of the prefixes' mean relative residual")
    kmeans_iterations: Annotated[int, Field(ge=0, le=10_000)] = param(
        20, "k-means iterations per fit"
    )
    labels: Literal["given", "clusters"] = param(
        "given", "classes to train on; clusters: of the features, without looking at labels"
    )
    clusters: Pair = param(32, "number of clusters, with labels: clusters")
    cluster_weight: Weight = param(
        0.02, "weight of the clusters' losses beside the one that keeps the encoder's neighbours"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Identifiers:
    """Rule that gives images their codes. All but ``semantic`` exist for comparison only: the
    served index encodes new images with the tokenizer."""

    rule: Literal["semantic", "random", "hierarchical_kmeans", "rqvae"] = param(
        "semantic", "the tokenizer's codes, or others to compare with"
    )
    rqvae_hidden: Width = param(256, "RQ-VAE: width of the hidden layers")
    rqvae_width: Width = param(32, "RQ-VAE: width of the quantized vector")
    rqvae_steps: Size = param(2000, "RQ-VAE: gradient steps")
    rqvae_batch_size: Batch = param(128, "RQ-VAE: images per gradient step")
    rqvae_learning_rate: Rate = param(1e-3, "RQ-VAE: learning rate")
    rqvae_commitment: Weight = param(0.25, "RQ-VAE: weight of the commitment loss")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Texts:
    """Text encoder, which reads queries in words. It is trained if the images have texts."""

    columns: tuple[str, ...] = param(
        (), "columns with texts of the images; empty: all text columns, and the label"
    )
    steps: Size = param(300, "gradient steps")
    batch_size: Batch = param(64, "images per gradient step, each with words of its texts")
    learning_rate: Rate = param(3e-3, "largest learning rate")
    subwords: Size = param(50_000, "most sub-words with a vector: the most frequent ones")
    dropout: Dropout = param(0.3, "share of a text's words left out at random in training")
    temperature: Temperature = param(0.1, "temperature of the contrastive loss")
    share: Share = param(
        0.5, "queries in words for each image of a batch, when the retriever is trained"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Retriever(Training):
    """Retriever: query encoder and autoregressive decoder."""

    encoder: Literal["pretrained", "tokenizer"] = param("tokenizer", "encoder that reads the query")
    tune_encoder: bool = param(False, "train that encoder too")
    width: Width = param(96, "width of the decoder; a multiple of heads")
    layers: Layers = param(3, "decoder layers")
    heads: Layers = param(4, "attention heads")
    dropout: Dropout = param(0.1, "dropout in the decoder")
    validate_every: Size = param(40, "steps between two validations, or a pass if that is longer")
    patience: Size = param(5, "validations without improvement before training stops")
    encoder_learning_rate: Rate = param(1e-4, "learning rate of the encoder's last block")
    label_smoothing: Dropout = param(0.1, "label smoothing")
    gradient_clip: Clip = param(1.0, "largest norm of the gradient")
    ema_decay: Annotated[float, Field(ge=0, le=0.99999)] = param(
        0.99, "decay of the moving average of the weights"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Index:
    """Search defaults of the served index, besides ``evaluate.beams`` and the like."""

    fresh_beams: Annotated[int, Field(ge=0, le=100_000)] = param(
        30, "beams towards images added after training; 0: none"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Evaluate:
    """Search options, and how search is measured."""

    cutoffs: Annotated[tuple[Cutoff, ...], Field(min_length=1)] = param(
        (1, 10, 20), "k of precision@k and the other metrics"
    )
    beams: Cutoff = param(20, "code sequences kept by beam search (W)")
    candidates: Size = param(100, "most images collected from the beams; at least the largest k")
    hedge: Annotated[float, Field(ge=0, le=1000)] = param(
        20.0, "how much one good hit among the first ten is worth, in tens of good hits; 0: nothing"
    )
    queries: Size = param(3000, "queries measured at most; of more, the same sample each time")
    batch_size: Batch = param(64, "queries per search batch")
    trie: bool = param(True, "allow only codes of database images; false: any, and misses count")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Drift:
    """Limits from which new images count as too unlike the training images. "Held-out" are
    validation images and queries from the time of training. ``evaluation.drift_verdict`` explains
    how the defaults were chosen."""

    minimum_images: Size = param(50, "fewer new images are never called drift")
    minimum_share: Weight = param(0.02, "nor is a smaller share of the training images")
    minimum_held_out: Size = param(20, "fewer held-out images or queries say nothing")
    residual_ratio: Weight = param(1.8, "residual of new images / of held-out images")
    unseen_codes: Share = param(0.05, "share of new images with a code no training image has")
    unseen_prefixes: Share = param(0.25, "share with a new code prefix, minus held-out's share")
    unseen_labels: Share = param(0.1, "share with a label no training image has")
    group_growth: Weight = param(1.5, "growth of an average code group / of the database")
    collisions: Share = param(0.15, "share with another label's codes, minus held-out's share")
    precision_drop: Cosine = param(0.15, "precision_capped of old queries minus that of new ones")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Gate:
    """Conditions for a new index to replace the served one, on the images that both could hold.
    Trainings that differ only in their seed vary by 0.003 to 0.006 in precision/10; 60 digits of
    unknown classes among 1,200 images cost the queries of known classes 0.018."""

    metric: str = param(
        "auto",
        "precision, precision_capped, hit, recall or agreement at a cut-off; auto: precision/10, "
        "without labels agreement/10",
    )
    margin: Share = param(0.02, "how much worse than the served index it may be")
    minimum: Share = param(0.2, "least value of a first index, and of one worse than the served")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Release:
    """Number of releases to keep, and copies in a bucket and in MLflow."""

    keep: Size = param(5, "newest releases kept, besides the champion and the one before it")
    remote: str = param("", "s3://bucket/prefix that releases are copied to; empty: none")
    endpoint: str = param("", "URL of an S3 service other than Amazon's; empty: as AWS is set up")
    model: str = param("irgen", "name of the registered model in MLflow; empty: none")
    max_model_megabytes: Number = param(200, "larger indexes are registered as a pointer only")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Report:
    """Content of the report."""

    gallery: Number = param(12, "queries shown")
    confusions: Number = param(8, "label pairs shown")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tracking:
    """Logging of runs to MLflow."""

    experiment: str = param("auto", "name of the experiments; auto: name of the source")
    max_artifact_megabytes: Number = param(
        20, "larger files, and those with images or their names, are logged as path and digest"
    )
