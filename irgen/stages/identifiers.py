"""Codes and tuned embeddings of every role's images; deterministic."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from irgen.artifacts.identifiers import Identified, save_identified
from irgen.artifacts.tokenizer import load_tokenizer
from irgen.catalog.table import NAMES, read_table
from irgen.encoding import open_encoding, summaries
from irgen.files import read_array
from irgen.models.quantizer import usage
from irgen.models.tokenizer import Tokenizer, adapt_all
from irgen.params import Params
from irgen.workspace import Workspace

MEASURED = ("train", "database")


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/identifiers/<role>/codes.parquet`` and ``embeddings.npy``, row-aligned with the
    catalogue's table of that role. Metrics of train and database."""
    model, _ = load_tokenizer(workspace.existing("tokenizer", "tokenizer.safetensors"))
    found: dict[str, float] = {}
    for role in NAMES:
        table = read_table(workspace.existing("catalog", f"{role}.parquet"))
        embeddings = tuned(model, role, table["sha256"].to_list(), params, workspace)
        codes = model.to("cpu").tokenize(embeddings)
        identified = Identified(table["id"].to_list(), codes, embeddings)
        save_identified(workspace.stage("identifiers") / role, identified)
        if role not in MEASURED:
            continue
        spread = usage(codes, params.tokenizer.codebook) if len(codes) else {}
        found |= {f"{role}/{name}": value for name, value in spread.items()}
        found[f"{role}/distinct_codes"] = float(len(codes.unique(dim=0)))
    return found


def tuned(
    model: Tokenizer, role: str, sha256s: list[str], params: Params, workspace: Workspace
) -> Tensor:
    """Tuned embeddings (N, D) of a role's images, from its cached summaries or, with a tuned
    encoder, from those images the encoder has not seen yet and the cache."""
    encoding = open_encoding(params.compute, workspace)
    if model.encoder is None:
        known = np.array(read_array(workspace.existing("features", role, "features.npy")))
    else:
        known = summaries(model.encoder, sha256s, encoding)
    return adapt_all(model, known, encoding.machine.device)
