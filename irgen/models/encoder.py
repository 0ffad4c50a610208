"""Image encoder: any timm backbone as one summary vector and a grid of tokens."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.catalog.images.pixels import Decoding

VERSION = 2  # raise when an encoder with equal weights gives another summary or tokens


class ImageEncoder(nn.Module):
    """A timm backbone from raw pixels to a summary and tokens.

    A ViT's summary is its class token (or pooled head) and its tokens are the patch tokens; a
    convolutional net's summary is its pooled feature and its tokens are the cells of its last grid.
    Of ``grid``, if it is not 0, means of ``grid`` × ``grid`` regions are the tokens instead.
    Normalisation follows timm's data config and happens inside, so no caller can get it wrong.

    The batch norms of a ``pretrained`` encoder keep their statistics when it is trained: those of a
    small batch are worse, and the other weights would have to follow them.

    Attributes: ``decoding`` of its images; ``width`` of the summary, ``token_width`` and
    ``token_count`` of the tokens.
    """

    mean: Tensor  # (1, C, 1, 1), of pixels from 0 to 255; so is std
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        image_size: int,
        channels: Literal[1, 3],
        crop: float,
        *,
        grid: int = 0,
        pretrained: bool = False,
    ):
        from timm.data import resolve_model_data_config  # takes seconds

        super().__init__()
        self.backbone: Any = backbone  # timm's models share methods, but no class that names them
        self.grid, self.pretrained = grid, pretrained
        config = resolve_model_data_config(backbone)
        mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
        if channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        self.register_buffer("mean", 255 * mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * std.view(1, -1, 1, 1), persistent=False)
        self.decoding = Decoding(
            size=image_size, channels=channels, crop=crop, interpolation=config["interpolation"]
        )
        with torch.inference_mode():
            was_training = backbone.training
            backbone.eval()
            summary, tokens = self(torch.zeros(1, *self.decoding.shape))
            backbone.train(was_training)
        self.width, (self.token_count, self.token_width) = summary.shape[1], tokens.shape[1:]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) pixels from 0 to 255, of any dtype → (B, D) summary, (B, P, T) tokens."""
        images = (pixels.float() - self.mean) / self.std
        if images.device.type == "cpu":  # there, convolutions are 1.3 to 1.5 times as fast
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.backbone.forward_features(images)
        summary = self.backbone.forward_head(features, pre_logits=True)
        return summary.flatten(1), self._tokens(features)

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Set training mode, or eval mode, of all modules but batch norms of a pretrained
        encoder, which stay in eval mode."""
        super().train(mode)
        if self.pretrained:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def _tokens(self, features: Tensor) -> Tensor:
        tokens = self._cells(features)
        return pool_grid(tokens, self.grid) if self.grid else tokens

    def _cells(self, features: Tensor) -> Tensor:
        if features.ndim == 3:  # (B, prefix + P, T)
            return features[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
        if features.shape[1] == self.backbone.num_features:  # (B, T, h, w)
            return features.flatten(2).transpose(1, 2)
        return features.flatten(1, 2)  # (B, h, w, T)


def pool_grid(tokens: Tensor, side: int) -> Tensor:
    """Return means (B, side², T) of regions of a square image's tokens (B, P, T), row by row; the
    tokens as they are where there are no more."""
    cells = math.isqrt(tokens.shape[1])
    if cells <= side:
        return tokens
    square = tokens.mT.unflatten(2, (cells, cells))  # (B, T, √P, √P)
    return F.adaptive_avg_pool2d(square, side).flatten(2).mT
