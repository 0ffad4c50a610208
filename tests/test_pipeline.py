"""``dvc.yaml`` says exactly what each stage's code reads: no stale result, no needless re-run.

``python tests/test_pipeline.py`` puts the code and the parameters right.
"""

import ast
import functools
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("download", "catalog", "features", "pairs", "tokenizer", "identifiers", "trie")
STAGES += ("retriever", "index", "evaluate", "drift", "report")
APART = {"baselines"}  # asked for by the comparison with others, not by this pipeline
TRAINING = ("pairs", "tokenizer", "retriever")
DATABASE = ("database", "queries", "data/download", "data/trie", "data/index", "data/evaluate")

REMEDY = "run python tests/test_pipeline.py"

# Plumbing: what these hold decides how a run is started, told and kept, not what it computes.
PLUMBING = {"__init__", "cli", "errors", "files", "params", "workspace"}
# Sections of which only some keys change what is computed.
DECISIVE = {"compute": ("compute.precision",)}


@functools.cache
def dvc_yaml() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())


def paths(entry: dict, kind: str) -> list[str]:
    """The paths under ``deps``, ``outs`` or ``metrics``, without their options."""
    return [item if isinstance(item, str) else next(iter(item)) for item in entry.get(kind, [])]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> set[Path]:
    """The files of irgen that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith("irgen.") and file.exists():
                found.add(file)
    return found


def read_beside(path: Path) -> set[Path]:
    """The files of the package, not modules, that a module names (a page's template)."""
    others = {each.name: each for each in path.parent.iterdir() if each.is_file()}
    named = {
        node.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {others[name] for name in named & others.keys() if not name.endswith(".py")}


@functools.cache
def code(stage: str) -> list[str]:
    """Every file of irgen that running the stage brings in, plumbing apart."""
    waiting, seen = [ROOT / "irgen" / "stages" / f"{stage}.py"], set()
    while waiting:
        path = waiting.pop()
        if path in seen or path.stem in PLUMBING:
            continue
        seen.add(path)
        waiting += imported(path)
        seen |= read_beside(path)
    return sorted(path.relative_to(ROOT).as_posix() for path in seen)


def parameters(stage: str) -> list[str]:
    """The keys of params.yaml that the stage's module reads, ``compute.threads`` and such apart."""
    return sorted(keys_read(stage) - {"catalog.training_revision"})


def keys_read(stage: str) -> set[str]:
    """The settings that the stage's module reads."""
    module = tree(ROOT / "irgen" / "stages" / f"{stage}.py")
    attributes = [node for node in ast.walk(module) if isinstance(node, ast.Attribute)]
    inner = {id(node.value) for node in attributes}  # of params.a.b: params.a, not read as a whole
    chains = {chain(node) for node in attributes if id(node) not in inner}
    read = {".".join(parts[1:3]) for parts in chains if parts[:1] == ("params",)}
    read |= {"."} if hands_all_on(module) else set()
    return decisive(read)


def chain(node: ast.AST) -> tuple[str, ...]:
    """``params.tokenizer.levels`` as its parts; empty for what does not start at a plain name."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (left := chain(node.value)):
        return (*left, node.attr)
    return ()


def hands_all_on(module: ast.Module) -> bool:
    """Whether the module gives the whole of ``params`` to a function that is not its own."""
    own = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    return any(
        isinstance(node, ast.Call)
        and any(isinstance(each, ast.Name) and each.id == "params" for each in node.args)
        and not (isinstance(node.func, ast.Name) and node.func.id in own)
        for node in ast.walk(module)
    )


def reads_training_revision(stage: str) -> bool:
    """Whether a stage reads ``catalog.training_revision``, which training.yaml sets."""
    return not {"catalog", "catalog.training_revision"}.isdisjoint(keys_read(stage))


def decisive(read: set[str]) -> set[str]:
    sections = yaml.safe_load((ROOT / "params.yaml").read_text()).keys()
    sections -= {"tracking", "release", *APART}
    if "." in read:
        read = set(sections)
    found = set()
    for key in read:
        section = key.split(".")[0]
        if section in DECISIVE:
            found |= {each for each in DECISIVE[section] if key in (section, each)}
        elif section == key or section not in read:
            found.add(key)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_its_module_its_command_and_its_folder(stage: str) -> None:
    entry = dvc_yaml()["stages"][stage]
    assert entry["cmd"] == f"python -m irgen {stage}"
    assert (ROOT / "irgen" / "stages" / f"{stage}.py").exists()
    for path in paths(entry, "outs") + paths(entry, "metrics"):
        assert path == f"data/{stage}" or path.startswith(f"data/{stage}/")


def test_the_pipeline_and_the_folder_of_stages_hold_the_same() -> None:
    modules = {path.stem for path in (ROOT / "irgen" / "stages").glob("*.py")} - {"__init__"}
    assert set(dvc_yaml()["stages"]) == modules - APART == set(STAGES)
    assert modules >= APART


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "download"])
def test_a_stage_depends_on_the_code_it_imports_and_no_other(stage: str) -> None:
    declared = [p for p in paths(dvc_yaml()["stages"][stage], "deps") if p.startswith("irgen/")]
    expected = code(stage)
    lines = "\n".join(f"      - {path}" for path in expected)
    assert sorted(declared) == expected, f"dvc.yaml: {stage}: {REMEDY}; the code is\n{lines}"


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "download"])
def test_a_stage_declares_the_parameters_it_reads_and_no_other(stage: str) -> None:
    declared = sorted(dvc_yaml()["stages"][stage].get("params", []))
    expected = parameters(stage)
    assert declared == expected, f"dvc.yaml: {stage}: {REMEDY}; it reads {', '.join(expected)}"


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "download"])
def test_a_stage_depends_on_the_training_revision_if_it_reads_it(stage: str) -> None:
    declared = "training.yaml" in paths(dvc_yaml()["stages"][stage], "deps")
    assert declared == reads_training_revision(stage)


def producers() -> dict[str, str]:
    return {
        path: stage
        for stage, entry in dvc_yaml()["stages"].items()
        for path in paths(entry, "outs") + paths(entry, "metrics")
    }


@pytest.mark.parametrize("stage", STAGES)
def test_every_data_dependency_is_written_by_an_earlier_stage(stage: str) -> None:
    made = producers()
    for path in paths(dvc_yaml()["stages"][stage], "deps"):
        if path.startswith("data/"):
            owner = next((made[out] for out in made if f"{path}/".startswith(f"{out}/")), None)
            assert owner is not None, f"{stage}: no stage writes {path}"
            assert STAGES.index(owner) < STAGES.index(stage)


@pytest.mark.parametrize("stage", TRAINING)
def test_training_depends_on_no_output_that_new_images_change(stage: str) -> None:
    """A new image joins the database: the files that training reads, here and upstream within its
    roles, must stay as they are."""
    for path in paths(dvc_yaml()["stages"][stage], "deps"):
        assert not any(word in path for word in DATABASE), f"{stage} would run again: {path}"


def corrected(text: str) -> str:
    """dvc.yaml with the code and parameters each stage should have; all else as it was."""
    lines: list[str] = []
    stage, section = "", ""
    for line in text.splitlines():
        if line.startswith("  ") and line.strip(" :") in STAGES and line[2] != " ":
            stage = line.strip(" :")
        if line.startswith("    ") and line[4] not in " -":
            if section == "deps" and stage != "download":
                lines += [f"      - {path}" for path in code(stage)]
            section = line.split(":")[0].strip()
        if line.startswith("    params:"):
            line = f"    params: [{', '.join(parameters(stage))}]"
        if not (section == "deps" and line.startswith("      - irgen/")):
            lines.append(line)
    return "\n".join(lines) + "\n"


def test_a_right_pipeline_is_left_as_it_is() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert corrected(corrected(text)) == corrected(text)
    before, after = yaml.safe_load(text), yaml.safe_load(corrected(text))
    for stage in STAGES:
        kept = [path for path in paths(before["stages"][stage], "deps") if "irgen/" not in path]
        assert [p for p in paths(after["stages"][stage], "deps") if "irgen/" not in p] == kept


if __name__ == "__main__":
    (ROOT / "dvc.yaml").write_text(corrected((ROOT / "dvc.yaml").read_text()))
