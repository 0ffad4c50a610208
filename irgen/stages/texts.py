"""Train the text encoder, which reads queries in words, on the texts of the training images.

Time: in proportion to the steps; sub-words are learnt from all distinct texts.
"""

from collections.abc import Callable

import torch

from irgen.catalog.table import TEXTS, read_table
from irgen.checkpoints.history import write_history
from irgen.checkpoints.identifiers import load_codes
from irgen.checkpoints.text import TEXT_ENCODER, save_text_encoder
from irgen.compute.machine import prepare
from irgen.encoding.texts import ImageTexts
from irgen.files.sealed import read_parquet
from irgen.files.workspace import Workspace
from irgen.models.text import TextEncoder
from irgen.params import Params
from irgen.training import texts as training
from irgen.training.run import TrainingRun


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/texts``: ``text_encoder.safetensors``, which says so if the catalogue has no
    texts, and ``history.csv``. Return how many texts and sub-words there are, and the last loss;
    nothing without texts.
    """
    folder, settings = workspace.stage("texts"), params.texts
    table = read_parquet(workspace.existing("catalog", TEXTS))
    ids = read_table(workspace.existing("catalog", "train.parquet"))["id"]
    texts = ImageTexts.build(ids, table)
    if not len(texts.rows):
        save_text_encoder(folder / TEXT_ENCODER, None)
        write_history(folder / "history.csv", [{"step": 0}])
        print("  the images have no texts: they cannot be searched for by words that are learnt")
        return {}
    embeddings = load_codes(workspace.existing("identifiers", "train")).embeddings
    torch.manual_seed(params.seed)
    words = {word for text in texts.split() for word in text}
    subwords = training.train_subwords(texts.split(), settings.subwords)
    model = TextEncoder(settings, subwords, words, embeddings.shape[1])
    training_run = TrainingRun(machine=prepare(params.compute), seed=params.seed, log=log)
    history = training.train(model, texts, embeddings, settings, training_run)
    save_text_encoder(folder / TEXT_ENCODER, model)
    write_history(folder / "history.csv", history)
    metrics = {"texts": float(len(texts.texts)), "subwords": float(len(subwords))}
    return metrics | history[-1]
