"""Create an encoder with first weights from timm's hub or a safetensors file, or random ones."""

import difflib
from pathlib import Path

import torch
from torch import nn

from irgen.checkpoints.fingerprint import NO_FILE
from irgen.checkpoints.hub import fetch_weights
from irgen.compute.checks import check_finite
from irgen.errors import ParamsError, WeightsError
from irgen.models.encoder import ImageEncoder
from irgen.params import Encoder


def create_encoder(config: Encoder, seed: int) -> ImageEncoder:
    """Create the encoder of ``params.yaml`` with its first weights; random ones are seeded.

    Raises ParamsError for a backbone or option timm does not know, WeightsError for weights that
    are missing, damaged or of another architecture, NumberError for weights that are not finite.
    """
    if config.weights not in NO_FILE and not Path(config.weights).is_file():
        raise WeightsError(
            f"encoder: weights: no file at {config.weights}; "
            "give the path of a safetensors file, 'hub' or 'none'"
        )
    torch.manual_seed(seed)
    backbone = _backbone(config)
    for name, tensor in backbone.state_dict().items():
        where = f"encoder: weights: {config.weights}: {name}"
        check_finite(tensor, where, "fetch the file again, or give another one")
    return _wrap(backbone, config)


def untrained_encoder(config: Encoder) -> ImageEncoder:
    """Create the encoder's architecture alone, for weights from a checkpoint."""
    return _wrap(_create(config, pretrained=False, overlay=None), config)


def _wrap(backbone: nn.Module, config: Encoder) -> ImageEncoder:
    return ImageEncoder(
        backbone,
        config.image_size,
        config.channels,
        config.crop,
        grid=config.grid,
        pretrained=config.weights != "none",
    )


def _backbone(config: Encoder) -> nn.Module:
    if config.weights == "none":
        return _create(config, pretrained=False, overlay=None)
    check_name(config.name)
    path = fetch_weights(config.name) if config.weights == "hub" else config.weights
    overlay = {"file": str(path)} if path else None
    try:
        return _create(config, pretrained=True, overlay=overlay)
    except ParamsError:
        raise
    except Exception as error:  # timm, torch, safetensors and the hub share no base class
        first = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"encoder: weights {config.weights!r} do not load into {config.name!r}: {first}. Give "
            "weights of this very architecture, or name the architecture they belong to"
        ) from error


def _create(config: Encoder, pretrained: bool, overlay: dict[str, str] | None) -> nn.Module:
    import timm  # takes seconds, which stages that make no encoder need not pay

    check_name(config.name)
    options = dict(config.options)
    if _takes_image_size(config.name):
        options.setdefault("img_size", config.image_size)
    try:
        return timm.create_model(
            config.name,
            pretrained=pretrained,
            pretrained_cfg_overlay=overlay,
            num_classes=0,
            in_chans=config.channels,
            **options,
        )
    except (TypeError, AssertionError, ValueError) as error:
        if pretrained and not isinstance(error, TypeError):
            raise
        raise ParamsError(
            f"params.yaml: encoder: options: {config.name!r} refuses {options}: {error}"
        ) from error


def check_name(name: str) -> None:
    """Raise ParamsError, with near names, for a model that timm does not know."""
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise ParamsError(
            f"params.yaml: encoder: name: timm has no model {name!r}"
            + (f"; near ones: {', '.join(near)}" if near else "; see timm.list_models()")
        )


def reads_one_size(name: str) -> bool:
    """Tell whether a timm model reads images of one size only, as most transformers do."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return config is not None and config.fixed_input_size


def _takes_image_size(name: str) -> bool:
    return name.startswith(("vit_", "deit", "beit", "eva", "swin", "flexivit", "samvit"))
