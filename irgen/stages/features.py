"""Pretrained features of every image; an image is encoded once in its life."""

from collections.abc import Callable

from irgen.catalog.table import read_table
from irgen.encoding import open_encoding, summaries
from irgen.files import write_array
from irgen.params import Params
from irgen.weights import create_encoder
from irgen.workspace import Workspace

ROLES = ("train", "validation", "database", "queries")


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/features/<role>/features.npy`` (N, S) float32, row-aligned with the catalogue's
    table of that role."""
    encoder = create_encoder(params.encoder, params.seed)
    encoding = open_encoding(params.compute, workspace)
    found: dict[str, float] = {"width": float(encoder.width)}
    for role in ROLES:
        table = read_table(workspace.existing("catalog", f"{role}.parquet"))
        features = summaries(encoder, table["sha256"].to_list(), encoding)
        write_array(workspace.stage("features") / role / "features.npy", features)
        found[f"images/{role}"] = float(len(features))
    return found
