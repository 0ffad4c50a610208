"""A stage in a process that is killed, which counts the batches that pass through an encoder."""

import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

from irgen.encoding import encode
from irgen.files.atomic import delete_strays
from irgen.files.workspace import Workspace
from irgen.models.encoder import ImageEncoder
from irgen.params import load
from irgen.stages import download

STAGES = ("download", "features", "identifiers", "tokenizer", "retriever")
MODULES = [f"irgen.stages.{stage}" for stage in STAGES]
SHARD_BYTES = 8 << 10  # so that there are many shards


def run(stage: str, root: str, counter: str, environment: Mapping[str, str]) -> None:
    """Run a stage of the project in ``root``; append a byte to ``counter`` for each batch."""
    os.environ.update(environment)  # the server from which this process was forked has another one
    encode.SHARD = 1  # each batch is stored when it is encoded
    download.sync = partial(download.sync, shard_bytes=SHARD_BYTES)
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
