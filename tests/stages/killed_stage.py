"""A stage in a process that is killed, which counts the batches that pass through an encoder."""

import os
from importlib import import_module
from pathlib import Path

from irgen.encoding import encode
from irgen.files.atomic import delete_strays
from irgen.files.workspace import Workspace
from irgen.models.encoder import ImageEncoder
from irgen.params import load

STAGES = ("features", "tokenizer", "retriever")
MODULES = [f"irgen.stages.{stage}" for stage in STAGES]


def run(stage: str, root: str, counter: str) -> None:
    """Run a stage of the project in ``root``; append a byte to ``counter`` for each batch."""
    encode.SHARD = 1  # each batch is stored when it is encoded
    forward = ImageEncoder.forward
    descriptor = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def count(self: ImageEncoder, pixels):
        if len(pixels) > 1:  # not the one by which an encoder measures itself
            os.write(descriptor, b".")
        return forward(self, pixels)

    ImageEncoder.forward = count
    module, workspace = import_module(f"irgen.stages.{stage}"), Workspace.at(Path(root))
    delete_strays(workspace.stage(stage))  # as the command does
    module.run(load(Path(root) / "params.yaml"), workspace, lambda row, step: None)
