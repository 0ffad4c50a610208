"""The approximate methods on the features of a finished run, by what their answers are worth: ms a
query at the same precision@10."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from irgen.checkpoints.identifiers import load_codes
from irgen.checkpoints.models import Models, assemble
from irgen.checkpoints.weights import create_encoder
from irgen.encoding.encode import decode_pixels, open_encoding
from irgen.evaluation import metrics
from irgen.evaluation.query_set import QuerySet, RankedLists, read_query_set
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.search import engine, trie
from irgen.search.decoder import Decoder
from irgen.search.engine import Options, QueryFeatures
from irgen.search.linear import PRECISIONS, Precision
from irgen.search.snapshot import Snapshot
from speed import neighbours
from speed.neighbours import Neighbours
from speed.stopwatch import Patience, repeat

K = 10
WIDTHS = (1, 2, 3, 5, 10, 20, 30)
EFFORTS = (1, 2, 4, 8, 10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
BATCHES = (1, 64)

Answer = Callable[[slice, int], np.ndarray]  # (which queries, k) → rows (Q, k)


@dataclass(frozen=True)
class Run:
    """A finished run: queries as the models read them, models, database."""

    read: QueryFeatures
    models: Models
    held: Snapshot
    query_set: QuerySet
    depth: int  # results to ask for, so that 10 are left without the query itself

    @classmethod
    def at(cls, params: Params, workspace: Workspace) -> "Run":
        """Loads it; the queries pass through the models here."""
        encoding = open_encoding(params.compute, workspace)
        torch.use_deterministic_algorithms(False)  # as where an index is searched
        models = assemble(
            workspace.existing("tokenizer", "tokenizer.safetensors"),
            workspace.existing("retriever", "retriever.safetensors"),
            create_encoder(params.encoder, params.seed),
        ).to(torch.device("cpu"))
        found = load_codes(workspace.existing("identifiers", "database"))
        held = Snapshot.fixed(
            trie.build(found.codes), found.codes, found.embeddings, models.tokenizer.codebooks
        )
        query_set = read_query_set(workspace, params.evaluate)
        sha256s = query_set.queries["sha256"].to_list()
        images = decode_pixels(models.query_encoder.encoder, sha256s, encoding)
        parts = [
            models.encode(torch.from_numpy(images[start : start + 64]))
            for start in range(0, len(images), 64)
        ]
        names = ("summary", "tokens", "embedding")
        read = QueryFeatures(
            *(torch.cat([getattr(part, name) for part in parts]) for name in names)
        )
        return cls(read, models, held, query_set, query_set.search_depth(K))

    def __len__(self) -> int:
        """Q."""
        return len(self.read.embedding)

    def generative(self, precision: Precision, width: int) -> Answer:
        """Beam search of that width, re-ranked."""
        decoder, options = (
            Decoder(self.models.retriever.decoder, precision),
            Options(beams=width, fresh_beams=0),
        )

        def answer(which: slice, k: int) -> np.ndarray:
            read = QueryFeatures(
                self.read.summary[which], self.read.tokens[which], self.read.embedding[which]
            )
            return engine.search(decoder, read, self.held, k, options).rows.numpy()

        return answer

    def other(self, rival: Neighbours, effort: int) -> Answer:
        """A rival with that much effort."""
        embeddings = self.read.embedding.numpy()

        def answer(which: slice, k: int) -> np.ndarray:
            rival.set_effort(effort)
            return rival.search(embeddings[which], k)

        return answer

    def judge(self, answer: Answer, patience: Patience) -> dict[str, float]:
        """``precision`` at 10 by label, over all queries, and ms a query ``batch_1``,
        ``batch_64``."""
        rows = answer(slice(0, len(self)), self.depth)
        lists = RankedLists(rows, np.zeros(rows.shape, np.float32))
        ids = self.query_set.drop_self(lists, K).ids
        hits = self.query_set.mark_relevant(ids)
        quality = metrics.summarise(hits, self.query_set.positives, [K])
        found = {"precision": quality[f"precision/{K}"], "found": float((ids >= 0).mean())}
        for batch in BATCHES:
            size, starts = min(batch, len(self)), max(1, len(self) - batch)

            def call(number: int, size: int = size, starts: int = starts) -> object:
                start = number * size % starts
                return answer(slice(start, start + size), K)

            found[f"batch_{batch}"] = repeat(call, patience).milliseconds(size)["p50"]
        return found


def compare(params: Params, workspace: Workspace, patience: Patience) -> dict[str, Any]:
    """A row for every method at every effort, and what each costs at the same precision."""
    run = Run.at(params, workspace)
    vectors = np.ascontiguousarray(run.held.segments[0].embeddings.numpy(), np.float32)
    rows = [
        {"method": f"generative, {precision}", "effort": width}
        | run.judge(run.generative(precision, width), patience)
        for precision in PRECISIONS
        for width in WIDTHS
    ]
    lists = neighbours.compressed(vectors, None)
    rivals = [neighbours.graph(vectors, None), lists, neighbours.reranked(lists, vectors, 100)]
    for rival in rivals:
        most = neighbours.list_count(len(vectors)) if rival.effort == "nprobe" else EFFORTS[-1]
        for effort in (e for e in EFFORTS if e <= most):
            judged = run.judge(run.other(rival, effort), patience)
            rows.append({"method": rival.name, "effort": effort} | judged)
    exact = neighbours.exact(vectors)
    rows.append({"method": exact.name, "effort": 0} | run.judge(run.other(exact, 0), patience))
    return {
        "database": len(vectors),
        "queries": len(run),
        "width": vectors.shape[1],
        "rows": rows,
        "matched": matched(rows),
    }


def matched(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each width of generative search in fp32: of every other method the cheapest setting, by
    time in batches, whose precision is at least as high; None where there is none."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = []
    for target in (row for row in rows if row["method"] == "generative, fp32"):
        others = {}
        for method in methods:
            as_good = [
                row
                for row in rows
                if row["method"] == method and row["precision"] >= target["precision"]
            ]
            best = min(as_good, key=lambda row: row["batch_64"], default=None)
            others[method] = best
        others["generative, fp32"] = target
        found.append({"precision": target["precision"], "methods": others})
    return found
