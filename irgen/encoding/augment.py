"""Random changes of a batch of training images, each image its own, in one pass of grid_sample."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.params import Augment

VERSION = 1  # raise when equal seeds change an image in another way


def augment(pixels: Tensor, settings: Augment, size: int, generator: torch.Generator) -> Tensor:
    """Change (B, C, H, H) pixels from 0 to 255 within ``settings`` → (B, C, size, size) float."""
    return change(pixels, draw(len(pixels), settings, generator), settings, size)


def draw(count: int, settings: Augment, generator: torch.Generator) -> Tensor:
    """Return the random numbers (``count``, R) from 0 to 1 that change so many images."""
    draws = [torch.rand(count, 8, generator=generator)]
    if settings.erase:
        draws.append(torch.rand(count, 5, generator=generator))
    return torch.cat(draws, dim=1)


def change(pixels: Tensor, draws: Tensor, settings: Augment, size: int) -> Tensor:
    """Change images as ``augment`` does, each by its own ``draws`` (B, R).

    Geometry (crop, rotation, shear, shift, flip) is one affine map an image, sampled bilinearly,
    the border repeated outside; then brightness and contrast, then a blank rectangle.
    """
    images, draws = pixels.float(), draws.to(pixels.device)
    grid = F.affine_grid(
        _maps(draws, settings), [len(images), images.shape[1], size, size], align_corners=False
    )
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if settings.colour:
        gain = 1 + settings.colour * (2 * draws[:, 6] - 1).view(-1, 1, 1, 1)
        lift = 255 * settings.colour * (draws[:, 7] - 0.5).view(-1, 1, 1, 1)
        mean = images.mean((1, 2, 3), keepdim=True)
        images = ((images - mean) * gain + mean + lift).clamp(0, 255)
    return _erase(images, draws[:, 8:], settings.erase) if settings.erase else images


def _maps(draws: Tensor, settings: Augment) -> Tensor:
    """Return affine maps (B, 2, 3) from output to input positions, in [-1, 1] units."""
    signed = 2 * draws - 1  # (B, 8) in [-1, 1]
    angle = math.radians(settings.rotate) * signed[:, 0]
    shear = torch.tan(math.radians(settings.shear) * signed[:, 1])
    zoom = 1 - settings.scale * draws[:, 2]
    stretch = 1 + 0.5 * settings.scale * signed[:, 3]
    reach = settings.shift + (1 - zoom)
    flip = torch.where(draws[:, 0] * 1000 % 1 < 0.5, -1.0, 1.0) if settings.flip else 1.0
    cos, sin = angle.cos(), angle.sin()
    rows = [
        torch.stack(
            [zoom * stretch * cos * flip, zoom * (shear * cos - sin), reach * signed[:, 4]], 1
        ),
        torch.stack(
            [zoom * stretch * sin * flip, zoom * (shear * sin + cos), reach * signed[:, 5]], 1
        ),
    ]
    return torch.stack(rows, dim=1)


def _erase(images: Tensor, draws: Tensor, chance: float) -> Tensor:
    """Set a rectangle of up to half the side to the image's mean, with the given chance. ``draws``:
    random numbers (B, 5)."""
    axis = torch.arange(images.shape[-1], device=images.device) / images.shape[-1]
    inside_x = (axis - draws[:, 1:2]).abs() < draws[:, 3:4] / 4  # (B, size)
    inside_y = (axis - draws[:, 2:3]).abs() < draws[:, 4:5] / 4
    hole = (
        inside_y[:, None, :, None]
        & inside_x[:, None, None, :]
        & (draws[:, 0] < chance).view(-1, 1, 1, 1)
    )
    return torch.where(hole, images.mean((2, 3), keepdim=True), images)
