"""Pair training images with neighbours, whose codes the retriever learns to predict."""

from collections.abc import Callable

import polars as pl
import torch

from irgen.catalog.table import read_table
from irgen.errors import CatalogError
from irgen.files.sealed import read_array, write_parquet
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.training.pairs import RULES


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/pairs/pairs.parquet``: anchor, positive (rows of train.parquet), similarity;
    sorted by anchor, then nearest first. The only training image of a label is its own positive.
    Metrics: ``recall`` is the share of the true nearest images that were found, 1 unless a label is
    too large to compare all its images. Time: see ``training/neighbours.py``; memory: the pairs,
    the features of ``neighbours.EXACT`` images, and one block of cosines. Raises CatalogError if
    the rule needs labels that images lack.
    """
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
    mined = RULES[rule](features, labels, params.pairs.neighbours, params.seed)
    rows, scores = mined.rows, mined.cosines
    alone = rows[:, 0] < 0
    rows[alone, 0], scores[alone, 0] = torch.arange(len(rows))[alone], 1.0
    anchors, ranks = torch.nonzero(rows >= 0, as_tuple=True)
    pairs = pl.DataFrame(
        {
            "anchor": anchors.numpy(),
            "positive": rows[anchors, ranks].numpy(),
            "similarity": scores[anchors, ranks].numpy(),
        }
    )
    write_parquet(workspace.stage("pairs") / "pairs.parquet", pairs)
    return {
        "pairs": float(len(pairs)),
        "without_neighbour": float(alone.sum()),
        "mean_similarity": float(pairs["similarity"].to_numpy().mean()),
        **({} if mined.recall is None else {"recall": mined.recall}),
    }
