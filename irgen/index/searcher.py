"""Searches in the views of one index: its settings, its calibration, and the filters in use."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields, replace
from threading import Lock
from typing import Any

import polars as pl
import torch
from torch import Tensor

from irgen.compute import has_fast_bf16
from irgen.errors import IndexingError
from irgen.index import filters
from irgen.index.filters import Allow
from irgen.index.found import Found
from irgen.index.view import View
from irgen.search import calibration, engine
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.search.decoder import Decoder
from irgen.search.engine import Options, QueryFeatures
from irgen.search.linear import PRECISIONS, Precision
from irgen.search.snapshot import Snapshot

FILTERS = 8  # filtered snapshots remembered


class Searcher:
    """What the searches of an index share. ``defaults`` are the options that a search without its
    own runs with; ``known`` tells how sure a hit is, or why that cannot be told."""

    def __init__(
        self, config: dict[str, Any], known: Calibration | Uncalibrated, device: torch.device
    ):
        names = {field.name for field in fields(Options)}
        own = config.get("search", {})
        self.defaults = Options(**{name: own[name] for name in names & own.keys()})
        self.known, self.device = known, device
        self._filtered: OrderedDict[bytes, tuple[View, Snapshot]] = OrderedDict()
        self._moved: tuple[View, Snapshot] | None = None
        self._remembering = Lock()

    def options(self, least: int, given: dict[str, Any], min_probability: float | None) -> Options:
        """The defaults, with as many beams as lead to ``least`` images, and with what is ``given``
        (None: not given). Raises IndexingError for values that make no sense, or a probability
        where the index has no calibration."""
        enough = replace(self.defaults, beams=max(least, self.defaults.beams))
        options = replace(enough, **{n: v for n, v in given.items() if v is not None})
        for name, fewest in (("beams", 1), ("candidates", 1), ("fresh_beams", 0)):
            if (value := getattr(options, name)) < fewest:
                raise IndexingError(f"{name}: {value} is too few; allowed: {fewest} or more")
        if options.distinct is not None and not -1 <= options.distinct <= 1:
            raise IndexingError(f"distinct: {options.distinct} is no cosine; allowed: −1 to 1")
        if min_probability is None:
            return options
        if isinstance(self.known, Uncalibrated):
            raise IndexingError(
                f"min_probability needs a calibrated index: {self.known.reason}; use min_score"
            )
        if not 0 <= min_probability <= 1:
            raise IndexingError(f"min_probability: {min_probability} is not within 0 … 1")
        return replace(options, min_cosine=calibration.cosine_at(self.known, min_probability))

    def written(
        self,
        decoder: Decoder,
        read: QueryFeatures,
        view: View,
        k: int,
        options: Options,
        allow: Allow | None,
    ) -> Found:
        """The answers to query images (Q) that were read, by the retriever."""
        snapshot = self.among(view, allow)
        return self._found(engine.search(decoder, read, snapshot, _at_least_one(k), options), view)

    def near(
        self, embeddings: Tensor, view: View, k: int, options: Options, allow: Allow | None
    ) -> Found:
        """The answers to unit embeddings (Q, D), without the retriever."""
        snapshot, embeddings = self.among(view, allow), embeddings.to(self.device).float()
        hits = engine.search_embeddings(embeddings, snapshot, _at_least_one(k), options)
        return self._found(hits, view)

    def like(
        self, ids: Sequence[str], view: View, k: int, options: Options, allow: Allow | None
    ) -> Found:
        """The images nearest to images of the index, which are no answer to themselves. Raises
        IndexingError if one is not in the index."""
        rows = torch.from_numpy(view.existing(ids)).to(self.device)
        embeddings = self._placed(view).gather(rows, "embeddings").float()
        hits = engine.search_embeddings(
            embeddings, self.among(view, allow), _at_least_one(k), options, excluded=rows
        )
        return self._found(hits, view)

    def among(self, view: View, allow: Allow | None) -> Snapshot:
        """What may be found. The latest filters by expression are remembered."""
        whole = self._placed(view)
        if allow is None:
            return whole
        if not isinstance(allow, pl.Expr):
            return whole.among(filters.allowed(allow, view).to(self.device))
        key = allow.meta.serialize()
        with self._remembering:
            seen, snapshot = self._filtered.get(key, (None, whole))
        if seen is not view:
            snapshot = whole.among(filters.allowed(allow, view).to(self.device))
        with self._remembering:
            self._filtered[key] = view, snapshot
            self._filtered.move_to_end(key)
            while len(self._filtered) > FILTERS:
                self._filtered.popitem(last=False)
        return snapshot

    def _placed(self, view: View) -> Snapshot:
        """The view's snapshot on the device of the search."""
        if self.device.type == "cpu":
            return view.snapshot
        moved = self._moved
        if moved is None or moved[0] is not view:
            self._moved = moved = (view, view.snapshot.to(self.device))
        return moved[1]

    def _found(self, hits: engine.Hits, view: View) -> Found:
        return Found.of(hits, view, self.known if isinstance(self.known, Calibration) else None)


def _at_least_one(k: int) -> int:
    if k < 1:
        raise IndexingError(f"k: {k} is too few; allowed: 1 or more")
    return k


def chosen_precision(name: str, device: torch.device) -> Precision:
    """The decoder's precision: ``auto`` is bf16 where the hardware has it, else fp32. Raises
    IndexingError for a name that is none, or int8 on anything but a CPU."""
    if name == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    for precision in PRECISIONS:
        if name == precision and (name != "int8" or device.type == "cpu"):
            return precision
    raise IndexingError(
        f"precision: {name!r} cannot be used here; allowed: auto, fp32, bf16, on a CPU int8"
    )
