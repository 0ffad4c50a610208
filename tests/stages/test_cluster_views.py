"""On a cluster, all workers encode what a training of a frozen encoder reads, before it begins."""

import dataclasses
import shutil
from importlib import import_module

import pytest

from irgen.compute import cluster
from irgen.encoding import views
from irgen.files.workspace import Workspace

from ..ray_cluster import start_cluster
from .conftest import run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer", "retriever"])
def test_a_training_finds_its_views_encoded_by_the_cluster(copy, monkeypatch, name):
    folder, params = copy
    shutil.rmtree(folder / ".cache" / "views", ignore_errors=True)
    section = dataclasses.replace(getattr(params, name), tune_encoder=False)
    params = dataclasses.replace(params, **{name: section})
    module, numbers = import_module(f"irgen.stages.{name}"), []
    encode = cluster.map_batches

    def encode_and_note(some, *arguments):
        numbers.extend(some)
        return encode(some, *arguments)

    def refuse(*arguments):
        raise AssertionError("views were encoded by the training")

    monkeypatch.setattr(cluster, "map_batches", encode_and_note)
    clustered = dataclasses.replace(params.compute, engine="ray", device="cpu")
    with start_cluster(2), monkeypatch.context() as before:
        before.setattr(module, "run_workers", lambda *arguments: {})
        module.run(dataclasses.replace(params, compute=clustered), Workspace.at(folder), print)
    assert numbers
    monkeypatch.setattr(views, "_write_views", refuse)
    assert run(params, folder, name)[name]["steps"] > 0
