"""Decoder of the retriever: predicts an image's code sequence, one code a level."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.params import Retriever as Settings

VERSION = 1  # raise when a decoder with equal weights gives other logits, or another loss


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the decoder's input, a summary (S,) and tokens (P, T), and output, M codes below
    L."""

    summary_width: int  # S
    token_width: int  # T
    token_count: int  # P
    levels: int  # M
    codebook: int  # L


KeyValue = tuple[Tensor, Tensor]  # each (Q, H, length, d)


class Block(nn.Module):
    """One pre-norm decoder layer: causal self-attention, cross-attention to the image, MLP."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.self_norm, self.cross_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.self_in, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.cross_query, self.cross_out = nn.Linear(width, width), nn.Linear(width, width)
        self.cross_memory = nn.Linear(width, 2 * width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, n, width) → (B, heads, n, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def encode_memory(self, memory: Tensor) -> KeyValue:
        """Compute cross-attention keys and values of an image's memory, once a query."""
        keys, values = self.cross_memory(memory).chunk(2, dim=-1)
        return self.split_heads(keys), self.split_heads(values)

    def forward(self, x: Tensor, memory: KeyValue) -> Tensor:
        """Teacher forcing: all levels at once, (B, M, width) → (B, M, width)."""
        parts = self.self_in(self.self_norm(x)).chunk(3, dim=-1)
        query, key, value = map(self.split_heads, parts)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.drop(self.self_out(attended.transpose(1, 2).flatten(2)))
        query = self.split_heads(self.cross_query(self.cross_norm(x)))
        attended = F.scaled_dot_product_attention(query, *memory).transpose(1, 2).flatten(2)
        x = x + self.drop(self.cross_out(attended))
        return x + self.drop(self.mlp(self.mlp_norm(x)))


class IdentifierDecoder(nn.Module):
    """Autoregressive decoder with one embedding table, position and output layer per level.

    Its memory is the image: a summary (B, S) and tokens (B, P, T) of any encoder. This is the form
    that is trained; ``irgen.search.decoder`` runs the same function level by level.
    """

    def __init__(self, settings: Settings, shape: Shape):
        super().__init__()
        self.shape, width = shape, settings.width
        levels, size = shape.levels, shape.codebook
        self.project_summary = _projection(shape.summary_width, width)
        self.project_tokens = _projection(shape.token_width, width)
        self.memory_positions = _table(1 + shape.token_count, width)
        self.start_embedding = _table(width)
        self.level_positions = _table(levels, width)
        self.code_embeddings = _table(max(levels - 1, 1), size, width)
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.memory_drop, self.norm = nn.Dropout(settings.dropout), nn.LayerNorm(width)
        self.output_weights = _table(levels, size, width)
        self.output_biases = nn.Parameter(torch.zeros(levels, size))

    def encode_memory(self, summary: Tensor, tokens: Tensor) -> list[KeyValue]:
        """Compute per layer the keys and values of images (B, S), (B, P, T); length 1 + P."""
        parts = [self.project_summary(summary)[:, None], self.project_tokens(tokens)]
        memory = self.memory_drop(torch.cat(parts, dim=1) + self.memory_positions)
        return [block.encode_memory(memory) for block in self.blocks if isinstance(block, Block)]

    def forward(self, summary: Tensor, tokens: Tensor, codes: Tensor) -> Tensor:
        """Compute teacher-forced logits (B, M, L) of every level, given codes (B, M) int64."""
        previous = [self.code_embeddings[m][codes[:, m]] for m in range(self.shape.levels - 1)]
        x = torch.stack([self.start_embedding.expand(len(codes), -1), *previous], dim=1)
        x = x + self.level_positions  # (B, M, width)
        for block, memory in zip(self.blocks, self.encode_memory(summary, tokens), strict=True):
            x = block(x, memory)
        return torch.einsum("bmd,mld->bml", self.norm(x), self.output_weights) + self.output_biases


def _projection(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, width))


def _table(*shape: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(*shape))


def loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Average the cross-entropy of logits (B, M, L) over images and levels. ``targets``: codes
    (B, M) int64, or the share of each code (B, M, L)."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1), label_smoothing=smoothing)
