"""The search algorithm published with IRGen (arXiv 2303.10126), written anew as a baseline.

One query at a time. Every step runs the whole decoder over the whole prefix of every beam, with the
image's tokens repeated for each beam: nothing is kept from step to step. Which codes may follow
is asked of a trie of dicts, from its root, beam by beam. The images of a code are found by
comparing it with the codes of all images. Scores are products of probabilities.

Kinder than what was published in two ways: a beam's children are set in one assignment rather than
one by one, and a batch is not looped over inside a step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.models.decoder import Block, IdentifierDecoder

Node = dict[int, "Node"]


def build(codes: Tensor) -> Node:
    """Return the trie of codes (N, M) as dicts in dicts; a leaf is an empty one."""
    root: Node = {}
    for code in torch.unique(codes, dim=0).tolist():
        node = root
        for entry in code:
            node = node.setdefault(entry, {})
    return root


@dataclass(frozen=True)
class Written:
    """The codes (W, M) int64 of one query, best first, and their probabilities (W,)."""

    codes: Tensor
    probabilities: Tensor


@torch.inference_mode()
def search(
    model: IdentifierDecoder, summary: Tensor, tokens: Tensor, trie: Node, width: int
) -> Written:
    """Return the best ``width`` codes for one image, summary (1, S) and tokens (1, P, T).

    Every level must offer at least ``width`` codes, as in what was published.
    """
    summary, tokens = summary.repeat(width, 1), tokens.repeat(width, 1, 1)
    prefixes = torch.empty(width, 0, dtype=torch.int64)
    kept = torch.ones(width)
    for level in range(model.shape.levels):
        found = next_entry(model, summary, tokens, prefixes).softmax(-1)  # (W, L)
        allowed = torch.full_like(found, -1.0)
        for beam, prefix in enumerate(prefixes.tolist() if level else [[]]):
            node = trie
            for entry in prefix:
                node = node[entry]
            children = torch.tensor(list(node))
            allowed[beam, children] = kept[beam] * found[beam, children]
        kept, best = allowed.flatten().topk(width)
        origin, entry = best // found.shape[1], best % found.shape[1]
        prefixes = torch.cat([prefixes[origin], entry[:, None]], 1)
    return Written(prefixes, kept)


def next_entry(
    model: IdentifierDecoder, summary: Tensor, tokens: Tensor, prefixes: Tensor
) -> Tensor:
    """Logits (B, L) of what follows prefixes (B, m): the decoder run from its beginning."""
    level = prefixes.shape[1]
    written = [model.code_embeddings[m][prefixes[:, m]] for m in range(level)]
    x = torch.stack([model.start_embedding.expand(len(prefixes), -1), *written], 1)
    x = x + model.level_positions[: level + 1]  # (B, m + 1, width)
    for block, memory in zip(model.blocks, model.encode_memory(summary, tokens), strict=True):
        assert isinstance(block, Block)
        x = block(x, memory)
    return model.norm(x[:, -1]) @ model.output_weights[level].T + model.output_biases[level]


def images(written: Written, codes: Tensor, k: int) -> Tensor:
    """The first k rows whose code was predicted, (≤ k,) int64: every code against codes (N, M)."""
    found: list[int] = []
    for code in written.codes.to(codes.dtype):
        found += torch.nonzero((codes == code).sum(1) == codes.shape[1]).flatten().tolist()
    return torch.tensor(found[:k])
