"""Every search method behind one signature: pixels → what it searches with → a Result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from irgen.checkpoints.models import Models
from irgen.compute import Machine
from irgen.encoding.batches import full_batches
from irgen.encoding.encode import Encoding, encode_summaries
from irgen.encoding.query_features import select_queries
from irgen.files import read_array
from irgen.index.index import Index
from irgen.models.encoder import ImageEncoder
from irgen.search import beam, engine
from irgen.search.brute_force import brute_force_search
from irgen.search.decoder import Decoder
from irgen.search.engine import Options, QueryFeatures
from irgen.search.label_scorer import LabelScorer
from irgen.search.result import Result
from irgen.search.snapshot import Snapshot
from irgen.workspace import Workspace

Encoded = (
    Any  # what a method's ``encode`` gives and its ``search`` takes: a vector, or a QueryFeatures
)

Encode = Callable[[Tensor], Encoded]


@dataclass(frozen=True)
class Encoder:
    """How queries become what a search takes: ``encode`` does it to pixels (Q, C, H, W), and is
    there to be timed; ``known`` gives it of rows of the queries, which were encoded before."""

    encode: Encode
    known: Callable[[Tensor], Encoded]


@dataclass(frozen=True)
class Method:
    """``search(encoded, k)`` gives the best k for what ``encoder`` makes of queries;
    ``bytes_per_image`` is what the search keeps of each database image; ``about``: what else was
    measured of it."""

    encoder: Encoder
    search: Callable[[Encoded, int], Result]
    bytes_per_image: float
    about: Mapping[str, float] = field(default_factory=dict)


def vectors(encode: Callable[[Tensor], Tensor], known: Tensor) -> Encoder:
    """Encodes by ``encode``, to unit vectors; ``known`` (Q, D) is what it gives of all queries."""

    def unit(pixels: Tensor) -> Tensor:
        return torch.nn.functional.normalize(encode(pixels).float(), dim=-1)

    whole = torch.nn.functional.normalize(known.float(), dim=-1)
    return Encoder(unit, lambda rows: whole[rows.to(whole.device)])


def reads(models: Models, known: QueryFeatures) -> Encoder:
    """Encodes as the models read; ``known`` is what they read of all queries."""
    return Encoder(models.encode, lambda rows: select_queries(known, rows, models.device))


def exact(encoder: Encoder, database: Tensor, bytes_per_image: float) -> Method:
    """The exact scan by cosine of unit vectors ``database`` (N, D)."""
    return Method(
        encoder, lambda encoded, k: brute_force_search(encoded, database, k), bytes_per_image
    )


@torch.inference_mode()
def by_features(
    pretrained: ImageEncoder, workspace: Workspace, asked: list[str], encoding: Encoding
) -> Method:
    """The exact scan of what the encoder, on the device, makes of images before any training;
    ``asked``: the queries' hashes."""
    device = encoding.machine.device
    path = workspace.existing("features", "database", "features.npy")
    features = torch.nn.functional.normalize(torch.from_numpy(read_array(path)), dim=-1)
    known = torch.from_numpy(encode_summaries(pretrained, asked, encoding)).to(device)
    encoder = vectors(lambda images: pretrained(images)[0], known)
    return exact(encoder, features.to(device), 4 * features.shape[1])


def classified(
    encoder: Encoder, database: Tensor, labels: Tensor, classify: Encode, bytes_per_image: float
) -> Method:
    """The exact scan of unit vectors ``database`` (N, D) in the order of labels: images of the
    label that ``classify`` finds likeliest for a query first, those of one label by cosine.
    ``labels`` (N,) int64 are the images' own, −1 of those that come last, having none of its C."""

    def search(encoded: Tensor, k: int) -> Result:
        told = classify(encoded)  # (Q, C)
        places = torch.nn.functional.pad(told.argsort(descending=True).argsort(), (0, 1))
        places[:, -1] = told.shape[1]

        def behind(start: int, end: int) -> Tensor:
            return -3.0 * places[:, labels[start:end]]  # more than cosines differ by

        return brute_force_search(encoded, database, k, behind)

    return Method(encoder, search, bytes_per_image)


def generative(
    models: Models,
    encoder: Encoder,
    database: Snapshot,
    options: Options,
    machine: Machine,
    label_scorer: LabelScorer | None,
) -> Method:
    """Beam search over the database's trie, as an index searches with these options.
    ``label_scorer``: None for codes that are not the tokenizer's."""
    decoder = Decoder(models.retriever.decoder, machine.decoder, label_scorer)

    def search(read: QueryFeatures, k: int) -> Result:
        hits = engine.search(decoder, read, database, k, options)
        return Result(hits.rows, hits.scores)

    return Method(encoder, search, bytes_held(database) / len(database))


def bytes_held(database: Snapshot) -> int:
    """What a search of a database keeps in memory: its tries and the tables by which beams walk
    them, which rows take part, codes, embeddings and keys."""
    found = 0
    for segment, *views in zip(
        database.segments, database.live_tries, database.fresh_tries, strict=True
    ):
        columns = (segment.codes, segment.embeddings, segment.keys, segment.trained)
        found += segment.trie.nbytes + sum(column.nbytes for column in columns)
        for live in views:
            parts = [live.first, live.second if segment.trie.levels > 1 else None]
            parts += (
                [] if live.counts is None else [*live.counts, live.group_offsets, live.postings]
            )
            found += sum(part.nbytes for part in parts if part is not None)
    return found


@torch.inference_mode()
def invalid(
    models: Models,
    encoder: Encoder,
    database: Snapshot,
    options: Options,
    batch: tuple[int, int, Machine],
) -> float:
    """The share of the identifiers that are written without the trie, ``options.beams`` a query,
    which no image of the database has. ``batch`` = (queries, batch size, machine)."""
    queries, size, machine = batch
    decoder, parts = Decoder(models.retriever.decoder, machine.decoder), database.parts(fresh=False)
    missing = written = 0
    for rows, new in full_batches(queries, size):
        read = encoder.known(rows)
        writing = decoder.start(read.summary, read.tokens)
        beams = beam.unconstrained_search(writing, [part.live for part in parts], options.beams)
        real = beams.scores[:new] > -torch.inf
        there = torch.stack(beams.leaves)[:, :new].amax(0) >= 0
        written += int(real.sum())
        missing += int((real & ~there).sum())
    return missing / max(written, 1)


def served(index: Index, encoder: Encoder, ids: list[str], copies: int) -> Method:
    """An index as it answers by itself: its own models, options and precision. ``ids`` (N,) are
    the database's, in the order of the rows that results are given in; ``copies``: as many more
    images than a search wants are asked for, in place of the query's own. Ids and metadata of its
    images, which are read from the disk, count as none of its memory."""
    numbers = {name: row for row, name in enumerate(ids)}
    view, models = index.view, index.models
    names = view.all_ids()
    snapshot = index.snapshot(view)
    rows = torch.tensor([*(numbers[name] for name in names), -1], device=models.device)

    def search(read: QueryFeatures, k: int) -> Result:
        options = index.options(k - copies)
        hits = engine.search(index.decoder, read, snapshot, k, options)
        return Result(rows[hits.rows], hits.scores)  # row −1 is the last one

    return Method(encoder, search, bytes_held(snapshot) / len(index))
