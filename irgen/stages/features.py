"""Encode every image with the pretrained encoder, once in its life."""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import torch

from irgen.catalog.table import NAMES, read_table
from irgen.checkpoints.weights import create_encoder
from irgen.compute.checks import Spread, check_finite
from irgen.encoding.cache import ArrayStore
from irgen.encoding.encode import open_encoding, store_summaries
from irgen.files.hash_rows import Hashes
from irgen.files.room import require_room
from irgen.files.sealed import write_blocks
from irgen.files.workspace import Workspace
from irgen.params import Params

WHAT = "features of the images"
REMEDY = "choose another encoder, or other weights for it, and look whether images differ"


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/features/<role>/features.npy`` (N, S) float32, row-aligned with the catalogue's
    table of that role.

    Time O(N); memory: hashes, and a block of the features.
    """
    encoder = create_encoder(params.encoder, params.seed)
    encoding = open_encoding(params.compute, workspace)
    roles = {
        role: read_table(workspace.existing("catalog", f"{role}.parquet"))["sha256"]
        for role in NAMES
    }
    sha256s = pl.concat(list(roles.values()))
    size = len(sha256s) * encoder.width * 4
    require_room(workspace.data, size, f"features of {len(sha256s):,} images")
    store, spread = store_summaries(encoder, sha256s, encoding), Spread()
    metrics: dict[str, float] = {"width": float(encoder.width)}
    for role, hashes in roles.items():
        path, shape = (
            workspace.stage("features") / role / "features.npy",
            (len(hashes), encoder.width),
        )
        write_blocks(path, shape, np.dtype(np.float32), read_checked(store, hashes, spread))
        metrics[f"images/{role}"] = float(len(hashes))
    spread.check(WHAT, REMEDY)
    return metrics


def read_checked(store: ArrayStore, sha256s: Hashes, spread: Spread) -> Iterator[np.ndarray]:
    """Yield the features of images in blocks, and add them to ``spread``. Raises NumberError if one
    is not finite."""
    for block in store.blocks(sha256s):
        vectors = torch.from_numpy(block)
        check_finite(vectors, WHAT, f"delete {store.folder.parent}; {REMEDY}")
        spread.add(vectors)
        yield block
