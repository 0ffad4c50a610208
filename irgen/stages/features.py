"""Encode every image with the pretrained encoder, once in its life."""

from collections.abc import Callable

import numpy as np
import torch

from irgen.catalog.table import NAMES, read_table
from irgen.checkpoints.weights import create_encoder
from irgen.compute.checks import check_finite, check_spread
from irgen.encoding.encode import encode_summaries, open_encoding
from irgen.files.room import require_room
from irgen.files.sealed import write_array
from irgen.files.workspace import Workspace
from irgen.params import Params


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/features/<role>/features.npy`` (N, S) float32, row-aligned with the catalogue's
    table of that role."""
    encoder = create_encoder(params.encoder, params.seed)
    encoding = open_encoding(params.compute, workspace)
    tables = [read_table(workspace.existing("catalog", f"{role}.parquet")) for role in NAMES]
    sha256s = [sha256 for table in tables for sha256 in table["sha256"]]
    size = len(sha256s) * encoder.width * 4
    require_room(workspace.data, size, f"features of {len(sha256s):,} images")
    features = encode_summaries(encoder, sha256s, encoding)  # all at once: one read of the cache
    what = "features of the images"
    remedy = "choose another encoder, or other weights for it, and look whether images differ"
    check_finite(
        torch.from_numpy(features), what, f"delete {encoding.cache / 'encodings'}; {remedy}"
    )
    check_spread(torch.from_numpy(features), what, remedy)
    ends = np.cumsum([len(table) for table in tables])
    metrics: dict[str, float] = {"width": float(encoder.width)}
    for role, rows in zip(NAMES, np.split(features, ends[:-1]), strict=True):
        write_array(workspace.stage("features") / role / "features.npy", rows)
        metrics[f"images/{role}"] = float(len(rows))
    return metrics
