"""The retriever: image tokens → autoregressive decoder that writes a neighbour's identifier."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.params import Retriever as Settings


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a decoder reads – a summary (S,) and tokens (P, T) – and writes: M codes below L."""

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

    def split(self, x: Tensor) -> Tensor:
        """(B, n, width) → (B, heads, n, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def remember(self, memory: Tensor) -> KeyValue:
        """Cross-attention keys and values of an image's tokens, computed once a query."""
        keys, values = self.cross_memory(memory).chunk(2, dim=-1)
        return self.split(keys), self.split(values)

    def cross(self, x: Tensor, memory: KeyValue) -> Tensor:
        """Adds what (B, n, width) reads from the image; n may be levels or beams."""
        query = self.split(self.cross_query(self.cross_norm(x)))
        read = F.scaled_dot_product_attention(query, *memory).transpose(1, 2).flatten(2)
        x = x + self.drop(self.cross_out(read))
        return x + self.drop(self.mlp(self.mlp_norm(x)))

    def forward(self, x: Tensor, memory: KeyValue) -> Tensor:
        """Teacher forcing: all levels at once, (B, M, width) → (B, M, width)."""
        query, key, value = map(self.split, self.self_in(self.self_norm(x)).chunk(3, dim=-1))
        read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.cross(x + self.drop(self.self_out(read.transpose(1, 2).flatten(2))), memory)

    def step(self, x: Tensor, memory: KeyValue, cache: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """One level of all beams: (Q, W, width) and the levels before it → the same, and the cache.

        The cache holds keys and values (Q, W, H, m, d); cross-attention takes the beams as its
        sequence, so the image's keys and values are never copied.
        """
        query, key, value = (
            self.self_in(self.self_norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        )
        key, value = key.unsqueeze(3), value.unsqueeze(3)  # (Q, W, H, 1, d)
        if cache is not None:
            key, value = torch.cat([cache[0], key], 3), torch.cat([cache[1], value], 3)
        weights = (key @ query.unsqueeze(-1)).squeeze(-1) / math.sqrt(
            query.shape[-1]
        )  # (Q, W, H, m)
        read = (weights.softmax(-1).unsqueeze(-2) @ value).flatten(2)  # (Q, W, width)
        return self.cross(x + self.self_out(read), memory), (key, value)


class IdentifierDecoder(nn.Module):
    """Decoder over an image's tokens with one embedding table, position and head per level.

    It reads the image as a summary (B, S) and tokens (B, P, T), whoever encoded them.
    """

    def __init__(self, settings: Settings, shape: Shape):
        super().__init__()
        self.shape, width = shape, settings.width
        summary, token, levels, size = (
            shape.summary_width,
            shape.token_width,
            shape.levels,
            shape.codebook,
        )
        self.read_summary = nn.Sequential(nn.LayerNorm(summary), nn.Linear(summary, width))
        self.read_tokens = nn.Sequential(nn.LayerNorm(token), nn.Linear(token, width))
        self.places = nn.Parameter(0.02 * torch.randn(1 + shape.token_count, width))
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.positions = nn.Parameter(0.02 * torch.randn(levels, width))
        self.entries = nn.Parameter(0.02 * torch.randn(max(levels - 1, 1), size, width))
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.memory_drop, self.norm = nn.Dropout(settings.dropout), nn.LayerNorm(width)
        self.heads = nn.Parameter(0.02 * torch.randn(levels, size, width))
        self.biases = nn.Parameter(torch.zeros(levels, size))

    def _layers(self) -> Iterator[Block]:
        return (block for block in self.blocks if isinstance(block, Block))

    def remember(self, summary: Tensor, tokens: Tensor) -> list[KeyValue]:
        """Per layer the keys and values of the image: (B, S), (B, P, T) → B × (1 + P) places."""
        memory = torch.cat([self.read_summary(summary)[:, None], self.read_tokens(tokens)], dim=1)
        memory = self.memory_drop(memory + self.places)
        return [block.remember(memory) for block in self._layers()]

    def forward(self, summary: Tensor, tokens: Tensor, codes: Tensor) -> Tensor:
        """Teacher-forced logits (B, M, L) of every level, given the codes (B, M) before it."""
        written = [self.entries[m][codes[:, m]] for m in range(self.shape.levels - 1)]
        x = torch.stack([self.start.expand(len(codes), -1), *written], dim=1) + self.positions
        for block, memory in zip(self.blocks, self.remember(summary, tokens), strict=True):
            x = block(x, memory)  # (B, M, width)
        return torch.einsum("bmd,mld->bml", self.norm(x), self.heads) + self.biases

    def step(
        self, level: int, last: Tensor, memory: list[KeyValue], cache: list[KeyValue] | None
    ) -> tuple[Tensor, list[KeyValue]]:
        """Logits (Q, W, L) of one level for all beams, whose last entries are (Q, W) int64 (unread
        at level 0), and the self-attention cache to hand to the next level."""
        x = self.start.expand(*last.shape, -1) if level == 0 else self.entries[level - 1][last]
        x, written = x + self.positions[level], []
        for i, block in enumerate(self._layers()):
            x, kept = block.step(x, memory[i], None if cache is None else cache[i])
            written.append(kept)
        return self.norm(x) @ self.heads[level].T + self.biases[level], written


def loss(logits: Tensor, codes: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy of the M codes of the target: logits (B, M, L), codes (B, M) → scalar."""
    return F.cross_entropy(logits.flatten(0, 1), codes.flatten(), label_smoothing=smoothing)
