"""Pair training images with neighbours, whose codes the retriever learns to predict."""

from collections.abc import Callable

import polars as pl
import torch

from irgen.catalog.table import read_table
from irgen.errors import CatalogError
from irgen.files import atomic, read_array
from irgen.models.pairs import RULES
from irgen.params import Params
from irgen.workspace import Workspace


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/pairs/pairs.parquet``: anchor, positive (rows of train.parquet), similarity;
    sorted by anchor, then nearest first. Raises CatalogError if there is no pair, or if the rule
    needs labels that images lack."""
    table = read_table(workspace.existing("catalog", "train.parquet"))
    path = workspace.existing("features", "train", "features.npy")
    features = torch.from_numpy(read_array(path))
    rule, missing = params.pairs.rule, table["label"].null_count()
    if missing and rule != "near":
        raise CatalogError(
            f"pairs: rule: {rule} needs labels, and {missing:,} training images have none; set "
            "pairs: rule: near, or give the source labels"
        )
    labels = torch.from_numpy(table["label"].rank("dense").fill_null(0).to_numpy().astype("int64"))
    rows, scores = RULES[rule](features, labels, params.pairs.neighbours, params.seed)
    anchors, ranks = torch.nonzero(rows >= 0, as_tuple=True)
    if not len(anchors):
        raise CatalogError(
            "no training image has a neighbour to learn from: every label has one image; "
            "add images, or set pairs: rule: near"
        )
    pairs = pl.DataFrame(
        {
            "anchor": anchors.numpy(),
            "positive": rows[anchors, ranks].numpy(),
            "similarity": scores[anchors, ranks].numpy(),
        }
    )
    with atomic(workspace.stage("pairs") / "pairs.parquet") as temporary:
        pairs.write_parquet(temporary)
    return {
        "pairs": float(len(pairs)),
        "without_neighbour": float(len(table) - len(anchors.unique())),
        "mean_similarity": float(pairs["similarity"].to_numpy().mean()),
    }
