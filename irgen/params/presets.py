"""Presets that `irgen init` writes: values for a kind of images, fitted to how many there are.

A preset is a function that returns values by section and key. A key that it leaves out, and another
preset sets, gets its default. `experiments/` holds what they were measured with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Values = dict[str, dict[str, Any]]

GPU_ENCODER = "vit_base_patch16_clip_224.openai"  # the paper's
CPU_ENCODER = "tf_efficientnet_lite0"  # 19 MB; the smallest that was tried
TINY_SIDE = 40  # pixels: a smaller short side is a tiny image, which a pretrained encoder blurs
TRAINED_SHARE = 0.72  # of the images, without given roles: 0.8 not queries, 0.9 not validation
FEW = 1000  # training images: fewer are soon learnt by heart
TUNED_BATCH = 32  # images of a step that trains a pretrained encoder too
IMAGES_A_CODE = 7  # training images that k-means needs for each code of a codebook

# The network of the built-in digits, trained from nothing; nobody would choose it for photos.
DIGITS_NETWORK = {"patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 4}
TINY_NETWORK = {"patch_size": 4, "embed_dim": 128, "depth": 5, "num_heads": 4}
DRAWING_NETWORK = {"channels": [32, 64, 128, 256], "stem_width": 16}


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Facts that a preset depends on. `images`: in all; `trained`: those that teach; `labels`:
    number of different ones, 0 without labels; `side`: pixels of the median short side; `channels`:
    1 if no image has colour."""

    images: int
    trained: int
    labels: int
    side: int
    channels: Literal[1, 3]


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A pretrained encoder: timm's `name`, `weights` (hub or a path), and how timm wants images.
    `fixed_size`: it reads images of that size alone, as transformers do."""

    name: str
    weights: str
    image_size: int
    crop: float
    fixed_size: bool = False


def digits() -> Values:
    """Return the values for the built-in digits: the defaults, and the encoder."""
    return {"encoder": _untrained("vit_tiny_patch16_224", 16, 1, DIGITS_NETWORK)}


def tiny_images(collection: Collection) -> Values:
    """Return values for images of at most TINY_SIDE pixels: a small network that is trained."""
    side = min(max(-4 * (-collection.side // 4), 16), TINY_SIDE)  # a multiple of the patch size
    encoder = _untrained("vit_tiny_patch16_224", side, collection.channels, TINY_NETWORK)
    codes = {"levels": 4, "codebook": min(32, fit_codebook(collection))}
    passes = collection.trained // 64
    return {
        "encoder": encoder,
        "tokenizer": codes | {"steps": max(600, 15 * passes)},
        "retriever": {"steps": max(600, 15 * passes)},
    }


def drawings(collection: Collection) -> Values:
    """Return values for line drawings in black and white: a small network that is trained. As
    `experiments/omniglot-small.yaml`."""
    passes = collection.trained // 64
    return {
        "compute": {"precision": "auto", "batch_size": 64},
        "encoder": _untrained("resnet10t", 48, 1, DRAWING_NETWORK),
        "augment": {"views": 4, "scale": 0.2, "rotate": 12.0, "shear": 8.0, "shift": 0.08},
        "pairs": {"neighbours": fit_neighbours(collection, 14)},
        "tokenizer": {
            **fit_codes(collection),
            "width": 256,
            "dropout": 0.1,
            "steps": max(1000, 20 * passes),
            "learning_rate": 2e-3,
            "encoder_learning_rate": 2e-3,
            "kmeans_iterations": 10,
        },
        "retriever": {
            **_decoder(),
            "steps": max(600, 10 * passes),
            "learning_rate": 1e-3,
        },
        "index": {"fresh_beams": fit_beams(collection, 100)},
        "evaluate": _search(beams=fit_beams(collection, 100), candidates=200),
    }


def photos(collection: Collection, encoder: Pretrained) -> Values:
    """Return values for photos: a pretrained encoder that stays as it is, and small networks that
    learn on its features. As `experiments/clothing-224.yaml`."""
    passes = collection.trained // 128
    return {
        "compute": {"precision": "auto", "batch_size": 16},
        "encoder": {
            "name": encoder.name,
            "weights": encoder.weights,
            "image_size": encoder.image_size,
            "channels": 3,
            "crop": encoder.crop,
            "grid": 3,
            "options": {},
        },
        "augment": {
            "views": fit_views(collection),
            "scale": 0.3,
            "rotate": 10.0,
            "shear": 0.0,
            "shift": 0.0,
            "flip": True,
            "colour": 0.1,
        },
        "pairs": {"neighbours": fit_neighbours(collection, 50)},
        "tokenizer": {
            **fit_codes(collection),
            "width": 256,
            "pretrained_width": 128,
            "hidden": 512,
            "dropout": 0.5 if collection.trained < FEW else 0.3,
            "tune_encoder": False,
            "steps": max(700, 5 * passes),
            "batch_size": 128,
            "learning_rate": 1e-3,
            "encoder_learning_rate": 0.0,
            "prefix_weight": 0.1,
            "kmeans_iterations": 10,
        },
        "retriever": {
            **_decoder(),
            "steps": max(400, 5 * passes),
            "learning_rate": 5e-4,
        },
        "index": {"fresh_beams": fit_beams(collection, 300)},  # most images of a new label
        "evaluate": _search(beams=fit_beams(collection, 600), candidates=2000),
    }


def without_labels(collection: Collection) -> Values:
    """Return the values that replace those of photos if there are no labels.

    Embeddings start at the encoder's neighbours and keep them: no hidden layer, no dropout, no
    changed views, which move an image away from its neighbours.
    Clusters take the place of labels, and the cosine alone sorts the candidates. With two levels
    more beams cost no more decoder steps, so that all images of a small collection are candidates.
    Measured in docs/lab-notes/without-labels.md.
    """
    two_levels = fit_codes(collection)["levels"] == 2
    clusters = max(2, min(collection.trained // 10, 200))
    return {
        "catalog": {"format": "images"},
        "augment": {"views": 1},
        "pairs": {"rule": "near", "neighbours": 20},
        "tokenizer": {
            "labels": "clusters",
            "clusters": clusters,
            "hidden": 0,
            "dropout": 0.0,
            "pretrained_width": 0,
        },
        "evaluate": {
            "beams": fit_beams(collection, 4096 if two_levels else 600),
            "candidates": 4000,
        },
    }


def tuned_photos(collection: Collection, encoder: Pretrained) -> Values:
    """Return the values that replace those of photos if the encoder is trained too.

    All but the encoder learn first, on its features as they are; from there small steps change its
    upper blocks (LP-FT, Kumar et al. 2022). Images that train a convolutional encoder are smaller:
    a step takes half the time, and random crops show things as large as the whole image does
    (FixRes, Touvron et al. 2019). Measured in docs/lab-notes/tuned-encoder.md.
    """
    passes = collection.trained // TUNED_BATCH
    return {
        "augment": {"scale": 0.5},
        "tokenizer": {
            "tune_encoder": True,
            "tuned_size": 0 if encoder.fixed_size else 32 * round(encoder.image_size / 45),
            "probe_steps": 4 * max(700, passes),
            "steps": max(300, 5 * passes),
            "batch_size": TUNED_BATCH,
            "learning_rate": 5e-4,
            "encoder_learning_rate": 2.5e-5 if encoder.fixed_size else 3e-4,
            "layer_decay": 0.75,
            "validate_every": max(40, 2 * passes),
        },
    }


def choose_kind(
    side: int, *, drawings: bool, labelled: bool
) -> tuple[Literal["tiny images", "drawings", "photos"], str]:
    """Return the preset for images of this median short side, and the reason in words."""
    if not labelled:
        return "photos", "only a pretrained encoder can tell then what is alike"
    if side <= TINY_SIDE:
        return "tiny images", (
            f"images of {side} pixels are too small for a pretrained encoder: a small network is "
            "trained on them"
        )
    if drawings:
        return "drawings", (
            "line drawings are unlike what encoders are pretrained on: a small network is trained "
            "on them"
        )
    return "photos", "a pretrained encoder has seen many photos; what it learnt stays as it is"


def fit_codes(collection: Collection) -> dict[str, int]:
    """Return levels and codes a level: two levels, or three where two cannot tell images apart."""
    codebook = fit_codebook(collection)
    return {"levels": 2 if codebook**2 >= collection.images else 3, "codebook": codebook}


def fit_codebook(collection: Collection) -> int:
    """Return the number of codes of a codebook: about two for each label, 64 at least, and no more
    than one for IMAGES_A_CODE training images.

    >>> few, some = (Collection(images=n, trained=n, labels=10, side=224, channels=3)
    ...              for n in (300, 3000))
    >>> fit_codebook(few), fit_codebook(some)
    (32, 64)
    """
    wanted = max(64, 2 * collection.labels, min(256, int(collection.images**0.5)))
    allowed = max(2, collection.trained // IMAGES_A_CODE)
    return min(_power_above(wanted), _power_below(allowed))


def fit_neighbours(collection: Collection, most: int) -> int:
    """Return the matches of an image: half of the training images of its label, at most `most`."""
    of_label = collection.trained // max(collection.labels, 1)
    return max(1, min(most, of_label // 2))


def fit_views(collection: Collection) -> int:
    """Return the changed copies of each training image that are encoded: more if there are few."""
    return 6 if collection.trained < FEW else 3 if collection.trained < 20_000 else 1


def fit_beams(collection: Collection, most: int) -> int:
    """Return the beams of a search, at most `most`: more than there are codes find nothing more."""
    codes = fit_codes(collection)
    return max(20, min(most, collection.images, codes["codebook"] ** codes["levels"]))


def _decoder() -> dict[str, Any]:
    return {
        "width": 256,
        "layers": 1,
        "dropout": 0.2,
        "batch_size": 128,
        "encoder_learning_rate": 0.0,
        "ema_decay": 0.98,
        "patience": 3,
    }


def _search(*, beams: int, candidates: int) -> dict[str, Any]:
    return {
        "beams": beams,
        "candidates": candidates,
        "batch_size": 32,
    }


def _untrained(name: str, side: int, channels: int, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "weights": "none",
        "image_size": side,
        "channels": channels,
        "options": dict(options),
    }


def _power_above(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _power_below(number: int) -> int:
    return 1 << (number.bit_length() - 1)


_ANY = Collection(images=1000, trained=720, labels=10, side=224, channels=3)
_ENCODER = Pretrained(name=CPU_ENCODER, weights="hub", image_size=224, crop=0.875)
EVERY = (  # of any collection: the keys that presets set
    digits(),
    tiny_images(_ANY),
    drawings(_ANY),
    photos(_ANY, _ENCODER),
    tuned_photos(_ANY, _ENCODER),
    without_labels(_ANY),
)
