"""Recognise which encoder a file of weights belongs to, by its name or its tensors."""

from collections.abc import Mapping
from pathlib import Path

from irgen.checkpoints.weights import check_name
from irgen.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]

ENCODERS = (  # tried in this order; the first that fits is taken
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "tf_efficientnet_lite3",
    "tf_efficientnet_lite4",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_base_patch16_clip_224.openai",
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
)
COUNTERS = "num_batches_tracked"  # some files leave these out


def recognise_encoder(path: Path, name: str = "") -> str:
    """Return the timm model whose weights a safetensors file holds: `name` if it is given, else the
    model that the file is named after, else the first of ENCODERS that fits.

    Raises WeightsError for a file that is missing, damaged, or fits none of them, or not `name`;
    ParamsError for a name that timm does not know.
    """
    shapes = read_shapes(path)
    if name:
        check_name(name)
        if not fits(name, shapes):
            raise WeightsError(f"{path} does not hold the weights of {name}")
        return name
    import timm  # takes seconds

    stem = path.name.removesuffix(".safetensors")
    named = [model for model in (stem, stem.split(".")[0]) if timm.is_model(model)]
    for model in (*named, *ENCODERS):
        if fits(model, shapes):
            return model
    raise WeightsError(
        f"{path} fits none of the encoders that are known here ({', '.join(ENCODERS)}); name the "
        "timm model it belongs to: --encoder NAME"
    )


def read_shapes(path: Path) -> Shapes:
    """Return the shape of each tensor of a safetensors file. Raises WeightsError if it is missing
    or none."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"no file at {path}; give the path of a safetensors file")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a whole safetensors file ({error}); fetch it again"
        ) from None


def fits(name: str, shapes: Shapes) -> bool:
    """Tell whether the tensors hold all weights of a timm model but its classifier."""
    import timm
    import torch

    with torch.device("meta"):  # shapes alone, no memory
        model = timm.create_model(name, num_classes=0)
    expected = model.state_dict()
    return all(
        shapes.get(key) == tuple(tensor.shape)
        for key, tensor in expected.items()
        if not key.endswith(COUNTERS)
    )


def read_input_format(name: str) -> tuple[int, float]:
    """Return the side in pixels and the crop of the images that a timm model was trained on."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return (config.input_size[-1], config.crop_pct or 1.0) if config else (224, 1.0)
