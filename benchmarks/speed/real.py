"""Compare approximate methods on the features of a finished run: ms a query at the same
precision@10."""

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
from speed import faiss_indexes
from speed.faiss_indexes import FaissIndex
from speed.stopwatch import Repeats, time_repeats

K = 10
WIDTHS = (1, 2, 3, 5, 10, 20, 30)
EFFORTS = (1, 2, 4, 8, 10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
BATCHES = (1, 64)

Method = Callable[[slice, int], np.ndarray]  # (the queries' slice, k) → rows (Q, k)


@dataclass(frozen=True)
class Run:
    """Hold a finished run: the queries' features, the models and the database."""

    features: QueryFeatures
    models: Models
    snapshot: Snapshot
    query_set: QuerySet
    depth: int  # results a search returns, so that K are left without the query itself

    @classmethod
    def load(cls, params: Params, workspace: Workspace) -> "Run":
        """Load models and database, and encode the queries."""
        encoding = open_encoding(params.compute, workspace)
        torch.use_deterministic_algorithms(False)  # as when an index is searched
        models = assemble(
            workspace.existing("tokenizer", "tokenizer.safetensors"),
            workspace.existing("retriever", "retriever.safetensors"),
            create_encoder(params.encoder, params.seed),
        ).to(torch.device("cpu"))
        database = load_codes(workspace.existing("identifiers", "database"))
        snapshot = Snapshot.fixed(
            trie.build(database.codes),
            database.codes,
            database.embeddings,
            models.tokenizer.codebooks,
        )
        query_set = read_query_set(workspace, params.evaluate)
        sha256s = query_set.queries["sha256"].to_list()
        images = decode_pixels(models.query_encoder.encoder, sha256s, encoding)
        parts = [
            models.encode(torch.from_numpy(images[start : start + 64]))
            for start in range(0, len(images), 64)
        ]
        names = ("summary", "tokens", "embedding")
        features = QueryFeatures(
            *(torch.cat([getattr(part, name) for part in parts]) for name in names)
        )
        return cls(features, models, snapshot, query_set, query_set.search_depth(K))

    def __len__(self) -> int:
        """Return the number of queries Q."""
        return len(self.features.embedding)

    def make_generative(self, precision: Precision, width: int) -> Method:
        """Return generative search with this beam width, re-ranked by embedding."""
        decoder = Decoder(self.models.retriever.decoder, precision)
        options, features = Options(beams=width, fresh_beams=0), self.features

        def search(queries: slice, k: int) -> np.ndarray:
            batch = QueryFeatures(
                features.summary[queries], features.tokens[queries], features.embedding[queries]
            )
            return engine.search(decoder, batch, self.snapshot, k, options).rows.numpy()

        return search

    def make_faiss(self, index: FaissIndex, effort: int) -> Method:
        """Return the search of a faiss index with this effort."""
        embeddings = self.features.embedding.numpy()

        def search(queries: slice, k: int) -> np.ndarray:
            index.set_effort(effort)
            return index.search(embeddings[queries], k)

        return search

    def measure(self, method: Method, repeats: Repeats) -> dict[str, float]:
        """Return ``precision`` at K by label over all queries, ``found``, the share of results that
        are no gaps, and ms a query in batches: ``batch_1``, ``batch_64``."""
        rows = method(slice(0, len(self)), self.depth)
        lists = RankedLists(rows, np.zeros(rows.shape, np.float32))
        ids = self.query_set.drop_self(lists, K).ids
        hits = self.query_set.mark_relevant(ids)
        quality = metrics.summarise(hits, self.query_set.positives, [K])
        measured = {"precision": quality[f"precision/{K}"], "found": float((ids >= 0).mean())}
        for batch in BATCHES:
            size, starts = min(batch, len(self)), max(1, len(self) - batch)

            def call(number: int, size: int = size, starts: int = starts) -> object:
                start = number * size % starts
                return method(slice(start, start + size), K)

            measured[f"batch_{batch}"] = time_repeats(call, repeats).milliseconds(size)["p50"]
        return measured


def compare(params: Params, workspace: Workspace, repeats: Repeats) -> dict[str, Any]:
    """Return a row for each method at each effort, and the rows of about equal precision."""
    run = Run.load(params, workspace)
    vectors = np.ascontiguousarray(run.snapshot.segments[0].embeddings.numpy(), np.float32)
    rows = [
        {"method": f"generative, {precision}", "effort": width}
        | run.measure(run.make_generative(precision, width), repeats)
        for precision in PRECISIONS
        for width in WIDTHS
    ]
    lists = faiss_indexes.build_ivfpq(vectors, None)
    reranked = faiss_indexes.add_reranking(lists, vectors, 100)
    for index in (faiss_indexes.build_hnsw(vectors, None), lists, reranked):
        limit = faiss_indexes.list_count(len(vectors)) if index.effort == "nprobe" else EFFORTS[-1]
        for effort in (e for e in EFFORTS if e <= limit):
            measured = run.measure(run.make_faiss(index, effort), repeats)
            rows.append({"method": index.name, "effort": effort} | measured)
    exact = faiss_indexes.build_flat(vectors)
    measured = run.measure(run.make_faiss(exact, 0), repeats)
    rows.append({"method": exact.name, "effort": 0} | measured)
    return {
        "database": len(vectors),
        "queries": len(run),
        "width": vectors.shape[1],
        "rows": rows,
        "matched": match_precision(rows),
    }


def match_precision(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each beam width of generative search in fp32, the row of each other method that
    is cheapest in batches among those of at least the same precision; None if there is none."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    matches = []
    for target in (row for row in rows if row["method"] == "generative, fp32"):
        cheapest: dict[str, Any] = {}
        for method in methods:
            as_good = [
                row
                for row in rows
                if row["method"] == method and row["precision"] >= target["precision"]
            ]
            cheapest[method] = min(as_good, key=lambda row: row["batch_64"], default=None)
        cheapest["generative, fp32"] = target
        matches.append({"precision": target["precision"], "methods": cheapest})
    return matches
