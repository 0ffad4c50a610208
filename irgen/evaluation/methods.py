"""Build the search methods that are compared.

To add one, write a function and name it in METHODS here, and give it a title in
``irgen/report/comparison.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from irgen.checkpoints.identifiers import ImageCodes
from irgen.checkpoints.models import Models
from irgen.compute.batches import full_batches, row_blocks
from irgen.encoding.encode import Encoding, encode_summaries, stream_batches
from irgen.encoding.query_features import select_queries
from irgen.evaluation.query_set import QuerySet
from irgen.files.sealed import read_array
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.index.kinds import number_rows
from irgen.models import quantizer
from irgen.models.encoder import ImageEncoder
from irgen.models.tokenizer import class_numbers
from irgen.params import Evaluate
from irgen.search import beam, engine
from irgen.search.brute_force import brute_force_search
from irgen.search.decoder import Decoder
from irgen.search.engine import Options, QueryFeatures
from irgen.search.label_scorer import LabelScorer
from irgen.search.ranking import Ranking
from irgen.search.relevance import Ranker
from irgen.search.result import Result
from irgen.search.snapshot import Snapshot

MOST_IMAGES = 500  # of an index that look for themselves: enough to tell 99 % from 97 %

Encoded = Any  # what an encoder returns and its search takes: vectors (Q, D), or QueryFeatures
Encode = Callable[[Tensor], Encoded]


@dataclass(frozen=True)
class Encoder:
    """Encoder of queries, in two forms that return the same. ``encode`` takes pixels (Q, C, H, W);
    it is only timed. ``select`` takes row numbers of queries that were encoded before."""

    encode: Encode
    select: Callable[[Tensor], Encoded]


@dataclass(frozen=True)
class Method:
    """A search: ``search(encoded, k)`` returns the best k for encoded queries.

    ``bytes_per_image``: memory that the search holds for each database image. ``extra_metrics``:
    metrics of this method alone.
    """

    encoder: Encoder
    search: Callable[[Encoded, int], Result]
    bytes_per_image: float
    extra_metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MethodInputs:
    """Parts that methods are built from: settings, models, the database and the encoded queries.

    ``pretrained``: the encoder before training. ``index``: the served index; None if the codes are
    not the tokenizer's.
    """

    settings: Evaluate
    has_labels: bool  # labels trained the tokenizer, so it classifies
    workspace: Workspace
    encoding: Encoding
    pretrained: ImageEncoder
    models: Models
    query_set: QuerySet
    query_features: QueryFeatures
    identified: ImageCodes
    snapshot: Snapshot
    index: Index | None

    @property
    def device(self) -> torch.device:
        """Return the device of all searches."""
        return self.encoding.machine.device

    @property
    def options(self) -> Options:
        """Return the options of generative search, re-ranked."""
        return Options.from_settings(self.settings, fresh_beams=0)

    @property
    def embeddings(self) -> Tensor:
        """Return the tuned embeddings of the database (N, D), on the device."""
        return self.snapshot.segments[0].embeddings

    @cached_property
    def embedding_encoder(self) -> Encoder:
        """Return the encoder to tuned embeddings."""
        return encode_as_vectors(self.models.embed, self.query_features.embedding.to(self.device))

    @cached_property
    def feature_encoder(self) -> Encoder:
        """Return the encoder to the retriever's features."""
        return Encoder(
            self.models.encode, lambda rows: select_queries(self.query_features, rows, self.device)
        )

    @cached_property
    def decoder(self) -> Decoder:
        """Return the retriever, prepared for search."""
        label_scorer = None if self.index is None else LabelScorer.build(self.models.tokenizer)
        return Decoder(self.models.retriever.decoder, self.encoding.machine.decoder, label_scorer)

    @cached_property
    def ranker(self) -> Ranker | None:
        """Return what ranks the database by label, as the index does; None without a ranking."""
        ranking = None if self.index is None else self.index.ranking
        label_scorer = self.decoder.label_scorer
        if not isinstance(ranking, Ranking) or label_scorer is None:
            return None
        kinds = number_rows(
            self.query_set.database,
            self.identified.codes,
            self.models.labels,
            label_scorer.code_labels,
        )
        return Ranker(ranking, kinds.to(self.device), self.snapshot.trained)

    @cached_property
    def invalid_share(self) -> Mapping[str, float]:
        """Return the share of predicted code sequences that no image has; empty with a trie."""
        return {} if self.options.trie else {"invalid": measure_invalid_share(self)}


def encode_as_vectors(encode: Callable[[Tensor], Tensor], queries: Tensor) -> Encoder:
    """Return an encoder to unit vectors; ``queries`` (Q, D): what ``encode`` returns for all."""

    def encode_unit(pixels: Tensor) -> Tensor:
        return normalize(encode(pixels).float(), dim=-1)

    unit = normalize(queries.float(), dim=-1)
    return Encoder(encode_unit, lambda rows: unit[rows.to(unit.device)])


def brute_force(encoder: Encoder, database: Tensor, bytes_per_image: float) -> Method:
    """Return brute-force search by cosine of unit vectors ``database`` (N, D)."""
    return Method(
        encoder, lambda encoded, k: brute_force_search(encoded, database, k), bytes_per_image
    )


@torch.inference_mode()
def brute_force_pretrained(inputs: MethodInputs) -> Method:
    """Return brute-force search of the features that the encoder computes before any training."""
    sha256s = inputs.query_set.queries["sha256"].to_list()
    return search_pretrained(inputs.pretrained, inputs.workspace, sha256s, inputs.encoding)


@torch.inference_mode()
def search_pretrained(
    pretrained: ImageEncoder, workspace: Workspace, sha256s: list[str], encoding: Encoding
) -> Method:
    """Return brute-force search of pretrained features; ``sha256s``: the queries' hashes."""
    device = encoding.machine.device
    path = workspace.existing("features", "database", "features.npy")
    features = normalize(torch.from_numpy(read_array(path)), dim=-1)
    queries = torch.from_numpy(encode_summaries(pretrained, sha256s, encoding)).to(device)
    encoder = encode_as_vectors(lambda images: pretrained(images)[0], queries)
    return brute_force(encoder, features.to(device), 4 * features.shape[1])


def brute_force_tuned(inputs: MethodInputs) -> Method:
    """Return brute-force search of the tuned embeddings."""
    embeddings = inputs.embeddings
    return brute_force(inputs.embedding_encoder, embeddings, 4 * embeddings.shape[1])


def classify_then_search(inputs: MethodInputs) -> Method | None:
    """Return a search of the tuned embeddings, likeliest label first; None if the tokenizer was
    trained without labels."""
    if not inputs.has_labels:
        return None
    labels = class_numbers(inputs.query_set.database["label"], inputs.models.labels)
    bytes_per_image = 4.0 * (inputs.embeddings.shape[1] + 1)
    return search_by_label(
        inputs.embedding_encoder,
        inputs.embeddings,
        labels.to(inputs.device),
        inputs.models.tokenizer.classify,
        bytes_per_image,
    )


def search_by_label(
    encoder: Encoder, database: Tensor, labels: Tensor, classify: Encode, bytes_per_image: float
) -> Method:
    """Return brute-force search of unit vectors ``database`` (N, D) that sorts by label first.

    ``classify`` returns a score of each of C labels (Q, C); images of the likeliest label come
    first, within a label by cosine. ``labels`` (N,) int64; images of label −1 come last.
    """

    def search(encoded: Tensor, k: int) -> Result:
        scores = classify(encoded)  # (Q, C)
        ranks = torch.nn.functional.pad(scores.argsort(descending=True).argsort(), (0, 1))
        ranks[:, -1] = scores.shape[1]

        def label_scores(start: int, end: int) -> Tensor:
            return -3.0 * ranks[:, labels[start:end]]  # cosines differ by 2 at most

        return brute_force_search(encoded, database, k, label_scores)

    return Method(encoder, search, bytes_per_image)


def brute_force_codes(inputs: MethodInputs) -> Method | None:
    """Return brute-force search of the reconstructions of the codes; None if they are not the
    tokenizer's."""
    if inputs.index is None:
        return None
    codes, codebooks = inputs.snapshot.segments[0].codes, inputs.snapshot.codebooks
    reconstructions = codebooks.new_empty(len(codes), codebooks.shape[2])  # (N, D)
    for rows in row_blocks(len(codes), quantizer.ROWS):
        reconstructions[rows] = normalize(quantizer.decode(codes[rows], codebooks)[:, -1], dim=-1)
    bits = codes.shape[1] * np.log2(codebooks.shape[1])
    bytes_per_image = bits / 8 + codebooks.nbytes / len(codes)
    return brute_force(inputs.embedding_encoder, reconstructions, bytes_per_image)


def generative(inputs: MethodInputs) -> Method:
    """Return generative search: beam search over the database's codes, sorted by the retriever."""
    return _generative(inputs, replace(inputs.options, rerank=False), None)


def generative_reranked(inputs: MethodInputs) -> Method:
    """Return generative search whose candidates are re-ranked."""
    return _generative(inputs, inputs.options, inputs.ranker)


def _generative(inputs: MethodInputs, options: Options, ranker: Ranker | None) -> Method:
    def search(features: QueryFeatures, k: int) -> Result:
        hits = engine.search(inputs.decoder, features, inputs.snapshot, k, options, ranker)
        return Result(hits.rows, hits.scores)

    size = measure_memory(inputs.snapshot) / len(inputs.snapshot)
    return Method(inputs.feature_encoder, search, size, inputs.invalid_share)


def served_index(inputs: MethodInputs) -> Method | None:
    """Return the served index with its own models, options and precision; None without an index.

    It returns as many images as the search depth adds to make up for copies of the query. Ids and
    metadata are read from disk, so they do not count as memory.
    """
    index = inputs.index
    if index is None:
        return None
    row_of = {name: row for row, name in enumerate(inputs.identified.ids)}
    view, copies = index.view, inputs.query_set.search_depth(0)
    names = view.all_ids()
    snapshot, ranker = index.snapshot(view), index.ranker(view)
    rows = torch.tensor([*(row_of[name] for name in names), -1], device=index.models.device)

    def search(features: QueryFeatures, k: int) -> Result:
        options = index.options(k - copies)
        hits = engine.search(index.decoder, features, snapshot, k, options, ranker)
        return Result(rows[hits.rows], hits.scores)  # row −1 is the last one

    own = {"finds_itself": measure_finds_itself(index, inputs)}
    return Method(inputs.feature_encoder, search, measure_memory(snapshot) / len(index), own)


METHODS: dict[str, Callable[[MethodInputs], Method | None]] = {
    "brute_force_pretrained": brute_force_pretrained,
    "brute_force_tuned": brute_force_tuned,
    "classify_then_search": classify_then_search,
    "brute_force_codes": brute_force_codes,
    "generative": generative,
    "generative_reranked": generative_reranked,
    "index": served_index,
}


def list_builders(inputs: MethodInputs) -> dict[str, Callable[[], Method | None]]:
    """Return what builds each method, by name, in the order of METHODS: one at a time fits into
    memory. A method that does not apply is None."""
    return {name: partial(build, inputs) for name, build in METHODS.items()}


def measure_memory(snapshot: Snapshot) -> int:
    """Return the bytes that a search of ``snapshot`` holds: tries, tables of children, live rows,
    codes, embeddings and keys."""
    size = 0
    for segment, *tries in zip(
        snapshot.segments, snapshot.live_tries, snapshot.fresh_tries, strict=True
    ):
        columns = (segment.codes, segment.embeddings, segment.keys, segment.trained)
        size += segment.trie.nbytes + sum(column.nbytes for column in columns)
        for live in tries:
            arrays = [live.first, live.second if segment.trie.levels > 1 else None]
            if live.counts is not None:
                arrays += [*live.counts, live.group_offsets, live.postings]
            size += sum(array.nbytes for array in arrays if array is not None)
    return size


def measure_finds_itself(index: Index, inputs: MethodInputs) -> float:
    """Return the share of the database's images whose first hit in ``index``, by its default
    options, is the image itself or a copy: of all, or of MOST_IMAGES drawn at random (seeded)."""
    sha256_of = dict(inputs.query_set.database.select("id", "sha256").iter_rows())
    order = np.random.default_rng(0).permutation(len(sha256_of))
    sha256s = inputs.query_set.database["sha256"].gather(order[:MOST_IMAGES]).to_list()
    first: list[str] = []
    decoding = index.models.decoding
    for pixels, new in stream_batches(sha256s, decoding, inputs.encoding, "find themselves"):
        first += index.search(pixels[:new], 1, index.options(1)).ids[:, 0].tolist()
    hits = [sha256_of[name] == sha256 for name, sha256 in zip(first, sha256s, strict=True)]
    return sum(hits) / len(hits)


@torch.inference_mode()
def measure_invalid_share(inputs: MethodInputs) -> float:
    """Return the share of code sequences predicted without the trie that no image has, of the best
    ``options.beams`` a query."""
    tries = [part.live for part in inputs.snapshot.live_parts(fresh=False)]
    invalid = predicted = 0
    size = inputs.settings.batch_size
    for rows, new in full_batches(len(inputs.query_set.queries), size):
        features = inputs.feature_encoder.select(rows)
        state = inputs.decoder.start(features.summary, features.tokens)
        beams = beam.unconstrained_search(state, tries, inputs.options.beams)
        real = beams.scores[:new] > -torch.inf
        exist = torch.stack(beams.leaves)[:, :new].amax(0) >= 0
        predicted += int(real.sum())
        invalid += int((real & ~exist).sum())
    return invalid / max(predicted, 1)
