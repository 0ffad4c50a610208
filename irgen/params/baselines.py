"""Settings of the methods that IRGen is compared with."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from irgen.params.fields import (
    STRICT,
    Cosine,
    Dropout,
    Hidden,
    Pair,
    Share,
    Size,
    Temperature,
    Weight,
    Width,
    param,
)
from irgen.params.sections import Training


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Hnsw:
    """A graph over the tuned embeddings (faiss)."""

    links: Pair = param(32, "links per image")
    build: Size = param(200, "efConstruction: images visited when one is added")
    search: Size = param(64, "efSearch: images visited per query")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IvfPq:
    """Inverted lists of compressed tuned embeddings (faiss)."""

    lists: Size = param(64, "most lists; fewer if the database is too small to train as many")
    probes: Size = param(8, "lists read per query")
    code_bytes: Size = param(32, "most bytes per image; lowered until it divides tokenizer.width")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Scann:
    """ScaNN over the tuned embeddings, or the nearest method in faiss if it is not installed."""

    lists: Size = param(64, "most lists")
    probes: Size = param(8, "lists read per query")
    part: Size = param(2, "dimensions that share one four-bit code")
    anisotropy: Share = param(0.2, "threshold of the anisotropic loss; not used by faiss")
    reranked: Size = param(100, "candidates scored exactly")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Spann:
    """Faiss's nearest equivalent of SPANN, over the tuned embeddings."""

    heads: Share = param(0.16, "centroids, as a share of the database")
    copies: Size = param(8, "most lists that hold the same image")
    closure: Weight = param(0.1, "how much farther than the nearest a centroid may be for a copy")
    probes: Size = param(16, "lists read per query")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Descriptor(Training):
    """Settings that trained descriptors share. ``tokenizer.tune_encoder`` applies to them too."""

    width: Width = param(64, "width of the descriptor (D)")
    hidden: Hidden = param(0, "width of the head's hidden layer; 0: a linear map")
    dropout: Dropout = param(0.0, "dropout before each layer of the head")
    batch_size: Pair = param(64, "images per gradient step")
    per_label: Pair = param(4, "images of the same label in a batch")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cgd(Descriptor):
    """Combination of Multiple Global Descriptors (arXiv 1903.10663)."""

    margin: Annotated[float, Field(ge=0, le=4)] = param(
        0.1, "margin of the triplet loss, between distances of unit vectors"
    )
    label_smoothing: Dropout = param(0.1, "label smoothing of the classification loss")
    temperature: Temperature = param(0.1, "temperature of the classification loss")
    class_weight: Weight = param(1.0, "weight of the classification loss")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Irt(Descriptor):
    """Training Vision Transformers for Image Retrieval (arXiv 2102.05644)."""

    margin: Cosine = param(0.5, "cosine from which images of other labels are pushed away")
    koleo: Weight = param(0.7, "weight of the differential-entropy regularizer")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Baselines:
    """Methods to compare with; ``evaluate`` says how they are searched and measured."""

    hnsw: Hnsw = param(Hnsw(), "a graph over the tuned embeddings")
    ivf_pq: IvfPq = param(IvfPq(), "inverted lists of compressed embeddings")
    scann: Scann = param(Scann(), "ScaNN")
    spann: Spann = param(Spann(), "SPANN")
    cgd: Cgd = param(Cgd(), "CGD descriptors")
    irt_r: Irt = param(Irt(), "IRT_R descriptors")
