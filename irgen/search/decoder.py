"""Run the retriever's decoder in a search: weights are prepared once, image features projected once
a query, and all beams move one level a step."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from irgen.models.decoder import Block, IdentifierDecoder
from irgen.search.linear import Precision, linear


class LabelScorer(Protocol):
    """Reads the labels of queries: see ``irgen.search.label_scorer``."""

    @property
    def code_labels(self) -> Tensor: ...

    def read_labels(self, embeddings: Tensor, first_code_log_probs: Tensor) -> Tensor: ...


class Decoder:
    """An identifier decoder prepared for beam search.

    It computes the same function as the model's ``forward`` (a test says so), but nothing twice and
    nothing that search does not need. The residual stream stays float32; matrix products run in
    ``precision``. ``label_scorer``: of the tokenizer that made the codes; None for other codes.
    """

    def __init__(
        self,
        retriever: IdentifierDecoder,
        precision: Precision = "fp32",
        label_scorer: LabelScorer | None = None,
    ):
        self.retriever, self.precision = retriever.eval(), precision
        self.label_scorer = label_scorer
        blocks = [block for block in retriever.blocks if isinstance(block, Block)]
        self.layers = [_Layer(block, precision) for block in blocks]
        self.cross_memory = linear(
            torch.cat([block.cross_memory.weight for block in blocks]),
            torch.cat([block.cross_memory.bias for block in blocks]),
            precision,
        )
        norm, project = retriever.project_tokens
        assert isinstance(project, torch.nn.Linear)
        self.read_tokens = (norm, linear(project.weight, project.bias, precision))
        self.heads = [
            linear(retriever.output_weights[m], retriever.output_biases[m], precision)
            for m in range(retriever.shape.levels)
        ]
        self.inputs, self.projections = self._tabulate_inputs()

    @torch.inference_mode()
    def _tabulate_inputs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return, for each level, the decoder's inputs (n, width) by latest code, one row before
        the first, and what the first layer's self-attention makes of them, (n, 3, H, d)."""
        model = self.retriever
        rows = [model.start_embedding[None], *model.code_embeddings[: model.shape.levels - 1]]
        inputs = [row + model.level_positions[m] for m, row in enumerate(rows)]
        return inputs, [self.layers[0].project(row) for row in inputs]

    @property
    def width(self) -> int:
        """Return the width of the residual stream."""
        return self.retriever.level_positions.shape[1]

    @torch.inference_mode()
    def start(self, summary: Tensor, tokens: Tensor) -> "DecoderState":
        """Return the state before the first code for query features (Q, S) and (Q, P, T)."""
        norm, project = self.read_tokens
        first = self.retriever.project_summary(summary.float())[:, None]
        rest = project(norm(tokens.float()).flatten(0, 1)).float().view(*tokens.shape[:2], -1)
        memory = torch.cat([first, rest], 1) + self.retriever.memory_positions  # (Q, 1 + P, width)
        projected = self.cross_memory(memory.flatten(0, 1))  # all layers at once
        shape = (*memory.shape[:2], len(self.layers), 2, self.layers[0].heads, -1)
        keys, values = projected.view(shape).permute(3, 2, 0, 4, 1, 5).flatten(2, 3)
        return DecoderState(self, keys, values)


@dataclass
class DecoderState:
    """Code sequences under decoding for a batch of queries: the scorer of generative beam search.

    ``keys`` and ``values`` (layers, Q·H, 1 + P, d) are those of the query images, shared by a
    query's beams. ``cache`` (m, layers, Q·beams, 2, H, d): keys and values of self-attention at the
    m levels decoded so far.
    """

    decoder: Decoder
    keys: Tensor
    values: Tensor
    cache: Tensor | None = None

    @property
    def queries(self) -> int:
        """Q."""
        return self.keys.shape[1] // self.decoder.layers[0].heads

    @property
    def device(self) -> torch.device:
        """Return the device of the scores."""
        return self.keys.device

    def step_scores(self, level: int, last: Tensor, origin: Tensor) -> Tensor:
        """Return the log-probabilities (Q, beams, L) of every code at ``level``.

        ``last`` (Q, beams) int64: each beam's latest code (ignored at level 0); ``origin``
        (Q, beams) int64: the beam of the previous step that each beam extends.
        """
        decoder = self.decoder
        codes = last.flatten() if level else torch.zeros_like(last).flatten()
        x, own = decoder.inputs[level][codes], decoder.projections[level][codes]
        cache = self._grow(level, origin, x)
        for i, layer in enumerate(decoder.layers):
            own = layer.project(x) if i else own
            x = layer.step(x, own, self.keys[i], self.values[i], cache[:, i])
        self.cache = cache
        logits = decoder.heads[level](decoder.retriever.norm(x)).float()
        return logits.log_softmax(-1).view(*last.shape, -1)

    def _grow(self, level: int, origin: Tensor, x: Tensor) -> Tensor:
        """Return the cache with room for one more level, reordered to the beams' origins."""
        layers, heads = self.decoder.layers, self.decoder.layers[0].heads
        shape = (level + 1, len(layers), len(x), 2, heads, x.shape[1] // heads)
        grown = torch.empty(shape, device=x.device)  # float32: no products of matrices here
        if self.cache is not None:
            before = self.cache.shape[2] // len(origin)  # beams a query had
            first = torch.arange(0, len(origin) * before, before, device=x.device)
            taken = (origin + first[:, None]).flatten()
            torch.index_select(self.cache, 2, taken, out=grown[:level])
        return grown


class _Layer:
    """One decoder layer over rows (Q·beams, width)."""

    def __init__(self, block: Block, precision: Precision):
        self.heads, width = block.heads, block.self_out.in_features
        scale = 1 / math.sqrt(width // self.heads)
        self.norms = block.self_norm, block.cross_norm, block.mlp_norm
        scaled = torch.cat([torch.full((width,), scale), torch.ones(2 * width)])
        scaled = scaled.to(block.self_in.weight.device)  # attention's scale is part of the query
        self.self_in = linear(
            block.self_in.weight * scaled[:, None], block.self_in.bias * scaled, precision
        )
        self.cross_query = linear(
            block.cross_query.weight * scale, block.cross_query.bias * scale, precision
        )
        self.self_out = linear(block.self_out.weight, block.self_out.bias, precision)
        self.cross_out = linear(block.cross_out.weight, block.cross_out.bias, precision)
        up, down = block.mlp[0], block.mlp[3]
        assert isinstance(up, torch.nn.Linear) and isinstance(down, torch.nn.Linear)
        self.up = linear(up.weight, up.bias, precision, gelu=True)
        self.down = linear(down.weight, down.bias, precision)

    def project(self, x: Tensor) -> Tensor:
        """Return the queries, keys and values (n, 3, H, d) of rows (n, width) in self-attention."""
        return self.self_in(self.norms[0](x)).view(len(x), 3, self.heads, -1)

    def step(self, x: Tensor, own: Tensor, keys: Tensor, values: Tensor, cache: Tensor) -> Tensor:
        """Return the layer's output, (Q·beams, width) → the same, from rows and their projections
        ``own`` (Q·beams, 3, H, d). Writes this level's keys and values to ``cache[-1]``; ``cache``
        (m, Q·beams, 2, H, d)."""
        cache[-1] = own[:, 1:]
        if len(cache) == 1:
            attended = own[:, 2]  # nothing else to attend to
        else:
            weights = (cache[:, :, 0] * own[:, 0]).sum(-1, keepdim=True).softmax(0)
            attended = (cache[:, :, 1] * weights).sum(0)  # (Q·beams, H, d)
        x = x + self.self_out(attended.flatten(1))
        query = self.cross_query(self.norms[1](x))
        by_head = query.view(-1, len(x) * self.heads // len(keys), self.heads, keys.shape[2])
        by_head = by_head.transpose(1, 2).flatten(0, 1)  # (Q·H, beams, d)
        attended = torch.bmm(torch.bmm(by_head, keys.transpose(1, 2)).softmax(-1), values)
        attended = attended.unflatten(0, (-1, self.heads)).transpose(1, 2).reshape(x.shape)
        x = x + self.cross_out(attended)
        return x + self.down(self.up(self.norms[2](x)))
