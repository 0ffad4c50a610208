"""``dvc.yaml`` names what decides each stage's result: no stale result, few needless re-runs."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from irgen.index import folder
from irgen.study.stage_cache import BASELINES

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("download", "catalog", "features", "pairs", "tokenizer", "identifiers", "trie")
STAGES += ("texts", "retriever", "index", "evaluate", "drift", "report")
CACHED = STAGES[1:]  # the download runs every time
APART = {"baselines"}  # run by `irgen compare`, not by this pipeline
TRAINING = ("pairs", "tokenizer", "texts", "retriever")
DATABASE = ("database", "queries", "data/download", "data/trie", "data/index", "data/evaluate")
MOST_ENTRIES = 8

# Code that no result depends on. Imports of these modules are not followed.
PLUMBING = {
    "errors": "messages",
    "params/strict": "checks settings, which are dependencies themselves",
    "params/sections": "declares settings",
    "params/baselines": "declares settings",
    "params/presets": "values that irgen init writes into params.yaml",
    "files/atomic": "atomic writes",
    "files/digests": "hashes",
    "files/hash_rows": "looks up content hashes",
    "files/sealed": "files with their checksum",
    "files/records": "records in JSON",
    "files/locks": "locks",
    "files/room": "asks whether a disk has room",
    "files/workspace": "paths",
    "compute/machine": "the device; compute.precision is a dependency",
    "compute/seeds": "generators of random numbers",
    "compute/workers": "starts the processes of a training",
    "compute/world": "divides a training among processes",
    "compute/batches": "cuts rows into batches",
    "compute/checks": "says that results are no numbers",
    "compute/cluster": "decides which machines encode images",
    "compute/cluster_training": "starts the processes of a training on a cluster",
    "catalog/columns": "names the user's columns, in the catalogue's tables too",
    "catalog/table": "reads the catalogue's tables, which are dependencies",
    "catalog/manifest": "reads the manifest of the download",
    "catalog/shards": "reads an image's bytes by their content hash",
    "catalog/inputs": "reads images that users name",
    "catalog/pictures": "finds the files of hits that a notebook shows",
    "catalog/thumbnails": "draws them small",
    "catalog/uploads": "has the files that were added by hand",
}
TRAINING_REVISION = "catalog.training_revision"  # which training.yaml sets
# Sections of params.yaml of which one key decides results.
DECISIVE = {"compute": "compute.precision"}
# Sections that no stage of the pipeline reads.
UNREAD = {"tracking", "release", *APART}


@functools.cache
def stages() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def paths(entry: dict, kind: str) -> list[str]:
    """Return the paths under ``deps``, ``outs`` or ``metrics``, without their options."""
    return [item if isinstance(item, str) else next(iter(item)) for item in entry.get(kind, [])]


def code_entries(stage: str) -> list[str]:
    return [path for path in paths(stages()[stage], "deps") if path.startswith("irgen/")]


def stage_module(stage: str) -> Path:
    return ROOT / "irgen" / "stages" / f"{stage}.py"


def is_plumbing(path: Path) -> bool:
    dotless = path.relative_to(ROOT / "irgen").with_suffix("").as_posix()
    return path.stem == "__init__" or dotless in PLUMBING


def imported_files(path: Path) -> set[Path]:
    """Return the files of irgen that a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names}
    return {file for file in files if file.is_relative_to(ROOT / "irgen") and file.exists()}


@functools.cache
def import_closure(stage: str) -> set[str]:
    """Return every file of irgen that running the stage brings in, plumbing apart."""
    waiting, closure = {stage_module(stage)}, set()
    while waiting:
        path = waiting.pop()
        closure.add(path)
        waiting |= {file for file in imported_files(path) - closure if not is_plumbing(file)}
    return {path.relative_to(ROOT).as_posix() for path in closure}


def covers(entry: str, path: str) -> bool:
    return path == entry or path.startswith(f"{entry}/")


def keys_read(stage: str) -> set[str]:
    """Return ``section`` or ``section.key`` for what a stage's module reads of ``params``."""
    module = ast.parse(stage_module(stage).read_text())
    attributes = [node for node in ast.walk(module) if isinstance(node, ast.Attribute)]
    inner = {id(node.value) for node in attributes}  # params.a of params.a.b
    names = [ast.unparse(node).split(".") for node in attributes if id(node) not in inner]
    return {".".join(parts[1:3]) for parts in names if parts[0] == "params"}


def passes_all_params_on(stage: str) -> bool:
    """Say whether the module gives the whole of ``params`` to a function that is not its own."""
    module = ast.parse(stage_module(stage).read_text())
    own = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
    return any(
        ast.unparse(call.func) not in own and "params" in [ast.unparse(a) for a in call.args]
        for call in calls
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_its_module_its_command_and_its_folder(stage: str) -> None:
    entry = stages()[stage]
    assert entry["cmd"] == f"python -m irgen {stage}"
    assert stage_module(stage).exists()
    for path in paths(entry, "outs") + paths(entry, "metrics"):
        assert path == f"data/{stage}" or path.startswith(f"data/{stage}/")


def test_the_pipeline_and_the_folder_of_stages_hold_the_same() -> None:
    modules = {path.stem for path in (ROOT / "irgen" / "stages").glob("*.py")} - {"__init__"}
    assert set(stages()) == modules - APART == set(STAGES)
    assert modules >= APART


@pytest.mark.parametrize("stage", CACHED)
def test_the_code_that_a_stage_imports_is_covered_by_its_dependencies(stage: str) -> None:
    entries = code_entries(stage)
    missing = sorted(
        path for path in import_closure(stage) if not any(covers(entry, path) for entry in entries)
    )
    assert not missing, f"dvc.yaml: {stage}: add to deps, or explain in PLUMBING: {missing}"


@pytest.mark.parametrize("stage", CACHED)
def test_a_stage_depends_on_little_code_and_on_none_in_vain(stage: str) -> None:
    entries = code_entries(stage)
    assert len(entries) <= MOST_ENTRIES
    for entry in entries:
        assert any(covers(entry, path) for path in import_closure(stage)), f"{stage}: {entry}"
        assert not any(covers(other, entry) for other in entries if other != entry)


@pytest.mark.parametrize("stage", CACHED)
def test_a_stage_declares_the_parameters_that_it_reads(stage: str) -> None:
    read, declared = keys_read(stage), set(stages()[stage].get("params", []))
    if passes_all_params_on(stage):
        read |= yaml.safe_load((ROOT / "params.yaml").read_text()).keys() - UNREAD
    read -= {TRAINING_REVISION}
    read = {key for key in read if DECISIVE.get(key.split(".")[0], key).startswith(key)}
    for key in read:
        section = key.split(".")[0]
        assert declared & {key, section, DECISIVE.get(section)}, f"dvc.yaml: {stage}: {key}"
    sections = {key.split(".")[0] for key in read}
    assert {key.split(".")[0] for key in declared} <= sections, f"dvc.yaml: {stage}: needless"


@pytest.mark.parametrize("stage", CACHED)
def test_a_stage_depends_on_the_training_revision_if_it_reads_it(stage: str) -> None:
    reads = keys_read(stage) & {TRAINING_REVISION, "catalog"} or passes_all_params_on(stage)
    whole = "catalog" in stages()[stage].get("params", [])
    declared = "training.yaml" in paths(stages()[stage], "deps")
    assert declared == bool(reads and (whole or TRAINING_REVISION in keys_read(stage)))


@pytest.mark.parametrize("stage", TRAINING)
def test_a_mended_download_or_a_changed_report_retrains_nothing(stage: str) -> None:
    for path in ("irgen/catalog/sources/s3.py", "irgen/report/page.py", "irgen/index/index.py"):
        assert not any(covers(entry, path) for entry in code_entries(stage))


def test_a_changed_report_page_concerns_the_report_alone() -> None:
    page = "irgen/report/page.html"
    assert [s for s in CACHED if any(covers(e, page) for e in code_entries(s))] == ["report"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_data_dependency_is_written_by_an_earlier_stage(stage: str) -> None:
    writers = {
        path: name
        for name, entry in stages().items()
        for path in paths(entry, "outs") + paths(entry, "metrics")
    }
    for path in paths(stages()[stage], "deps"):
        if path.startswith("data/"):
            writer = next((writers[out] for out in writers if covers(out, path)), None)
            assert writer is not None, f"{stage}: no stage writes {path}"
            assert STAGES.index(writer) < STAGES.index(stage)


@pytest.mark.parametrize("stage", TRAINING)
def test_training_depends_on_no_output_that_new_images_change(stage: str) -> None:
    """A new image joins the database. Training must read no file that this changes."""
    for path in paths(stages()[stage], "deps"):
        assert not any(word in path for word in DATABASE), f"{stage} would run again: {path}"


def test_the_baselines_of_a_comparison_depend_on_the_code_that_they_import() -> None:
    for path in import_closure("baselines"):
        assert any(covers(entry, path) for entry in BASELINES.code), path
    assert all(any(covers(e, p) for p in import_closure("baselines")) for e in BASELINES.code)


def test_the_lock_of_the_index_is_no_part_of_its_content() -> None:
    command = [Path(sys.executable).with_name("dvc"), "check-ignore", f"data/index/{folder.LOCK}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
