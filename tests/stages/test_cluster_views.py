"""On a cluster, all workers encode what a training of a frozen encoder reads, before it begins."""

import dataclasses
import shutil

import pytest

from irgen.compute import cluster
from irgen.encoding import views
from irgen.files.workspace import Workspace
from irgen.stages import retriever, tokenizer

from ..ray_cluster import start_cluster
from .conftest import run


@pytest.mark.slow
def test_trainings_find_their_views_encoded_by_the_cluster(copy, monkeypatch):
    folder, params = copy
    shutil.rmtree(folder / ".cache" / "views", ignore_errors=True)
    sections = {
        name: dataclasses.replace(getattr(params, name), tune_encoder=False)
        for name in ("tokenizer", "retriever")
    }
    params = dataclasses.replace(params, **sections)
    map_batches, encoded = cluster.map_batches, []

    def encode_and_note(numbers, *arguments):
        encoded.extend(numbers)
        return map_batches(numbers, *arguments)

    def refuse(*arguments):
        raise AssertionError("views were encoded by the training")

    monkeypatch.setattr(cluster, "map_batches", encode_and_note)
    settings = dataclasses.replace(params.compute, engine="ray", device="cpu")
    clustered = dataclasses.replace(params, compute=settings)
    with start_cluster(2), monkeypatch.context() as before_training:
        for module in (tokenizer, retriever):
            before_training.setattr(module, "run_workers", lambda *arguments: {})
            module.run(clustered, Workspace.at(folder), print)
    assert encoded
    monkeypatch.setattr(views, "_write_views", refuse)
    metrics = run(params, folder, *sections)
    assert all(metrics[name]["steps"] > 0 for name in sections)
