"""``irgen <stage>``: run one stage of the pipeline and record it."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import click

from irgen.commands.options import params_option, root_option, settings_file
from irgen.files.atomic import delete_strays
from irgen.files.workspace import Workspace

CACHES = ("encodings", "query_features", "training")  # other processes may write to them
DAY = 86_400.0  # seconds
STAGES = {
    "download": "Sync the source: fetch new and changed images, drop deleted ones.",
    "catalog": "Check every image and write one table per role.",
    "features": "Encode every image with the pretrained encoder, each once.",
    "pairs": "Find the pairs of matching images that the retriever learns from.",
    "tokenizer": "Train the semantic tokenizer: encoder and residual quantizer.",
    "identifiers": "Give every image its codes and its tuned embedding.",
    "trie": "Build the trie of the database's codes.",
    "texts": "Train the text encoder, which reads queries in words.",
    "retriever": "Train the retriever, which predicts the codes of a query's neighbours.",
    "index": "Build the index: models, images, and calibrated probabilities.",
    "evaluate": "Compare all search methods on the same queries.",
    "baselines": "Compare with approximate search, CGD and IRT_R.",
    "drift": "Say whether new images still resemble the training images.",
    "report": "Write the report page.",
}


def make_command(name: str) -> click.Command:
    """Return the command that runs stage ``name``."""

    @click.command(name, help=STAGES[name])
    @root_option
    @params_option
    def command(root: Path, params: Path | None) -> None:
        run_stage(name, root, params)

    return command


def run_stage(name: str, root: Path, params_file: Path | None) -> None:
    """Run one stage and record it. Raise IrgenError for what the user can mend."""
    from irgen.files.records import write_json
    from irgen.params import load
    from irgen.tracking.locations import find_project
    from irgen.tracking.recorder import record_stage

    params = load(settings_file(root, params_file))
    # an experiment in a folder of its own shares the encodings of its project
    workspace = replace(Workspace.at(root), cache=find_project(root) / ".cache")
    if name != "download":  # which sweeps its own folder, under its lock
        delete_strays(workspace.stage(name))
    for folder in CACHES:
        delete_strays(workspace.cache / folder, DAY)
    stage = import_module(f"irgen.stages.{name}")
    if name == "report":  # no output of DVC, so it may differ from build to build
        from irgen.commands.build_facts import describe_build

        write_json(workspace.reports / "build.json", describe_build(root, list(STAGES)))
    with record_stage(name, params, workspace, root) as recorder:
        recorder.log_result(stage.run(params, workspace, recorder.log))
