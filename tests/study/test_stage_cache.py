"""Which changes make a stage run again for a comparison, and which do not."""

import dataclasses
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml

from irgen.compute import machine
from irgen.params import Params, load
from irgen.study import stage_cache
from irgen.study.stage_cache import Folders, StageResult, make_key

PIPELINE = {
    "stages": {
        "pairs": {
            "cmd": "python -m irgen pairs",
            "params": ["pairs.rule", "seed"],
            "deps": ["data/features/train", "irgen/models/pairs.py"],
            "outs": ["data/pairs"],
        }
    }
}
BEFORE = {"catalog": StageResult("1", Path("a")), "features": StageResult("2", Path("b"))}
OTHER_CATALOG = {"catalog": StageResult("9", Path("a"))}
OTHER_FEATURES = {"features": StageResult("3", Path("b"))}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with one stage that depends on one file of code."""
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (tmp_path / "irgen" / "models").mkdir(parents=True)
    (tmp_path / "irgen" / "models" / "pairs.py").write_text("RULES = {}\n")
    (tmp_path / "irgen" / "other.py").write_text("")
    return tmp_path


@pytest.fixture
def params(root: Path) -> Params:
    return load(root / "params.yaml")


def test_a_trial_has_the_pipeline_s_stages_each_after_those_it_reads(root: Path) -> None:
    stages = stage_cache.list_stages(root)
    assert stages[0] == "download" and stages[-2:] == ["index", "evaluate"]
    for number, stage in enumerate(stages):
        assert set(stage_cache.load_inputs(root, stage).upstream) <= set(stages[:number])


def test_what_a_stage_does_not_depend_on_does_not_change_its_key(
    project: Path, params: Params
) -> None:
    first = make_key(project, "pairs", params, BEFORE)
    (project / "irgen" / "other.py").write_text("changed = True\n")
    others = dataclasses.replace(
        params, pairs=dataclasses.replace(params.pairs, neighbours=params.pairs.neighbours + 1)
    )
    assert make_key(project, "pairs", others, BEFORE | OTHER_CATALOG) == first


def test_code_parameters_and_stages_before_it_change_its_key(project: Path, params: Params) -> None:
    keys = [make_key(project, "pairs", params, BEFORE)]
    keys.append(make_key(project, "pairs", params, BEFORE | OTHER_FEATURES))
    keys.append(make_key(project, "pairs", dataclasses.replace(params, seed=5), BEFORE))
    keys.append(make_key(project, "pairs", params, {"catalog": BEFORE["catalog"]}))
    (project / "irgen" / "models" / "pairs.py").write_text("RULES = {'near': None}\n")
    keys.append(make_key(project, "pairs", params, BEFORE))
    assert len(set(keys)) == len(keys)


def test_a_stage_that_is_not_declared_depends_on_all_that_it_may_use(
    project: Path, params: Params
) -> None:
    keys = [make_key(project, "baselines", params, BEFORE)]
    keys.append(make_key(project, "baselines", dataclasses.replace(params, seed=5), BEFORE))
    keys.append(make_key(project, "baselines", params, BEFORE | OTHER_CATALOG))
    (project / "irgen" / "models" / "pairs.py").write_text("RULES = {'near': None}\n")
    keys.append(make_key(project, "baselines", params, BEFORE))
    assert len(set(keys)) == len(keys)
    (project / "irgen" / "other.py").write_text("changed = True\n")
    report = dataclasses.replace(params.report, gallery=params.report.gallery + 1)
    assert (
        make_key(project, "baselines", dataclasses.replace(params, report=report), BEFORE)
        == keys[-1]
    )


def test_auto_is_another_precision_on_another_machine(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = {"params": ["compute.precision"], "deps": [], "outs": []}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"pairs": stage}}))
    auto, plain = (
        dataclasses.replace(params, compute=dataclasses.replace(params.compute, precision=each))
        for each in ("auto", "fp32")
    )
    keys = {}
    for fast in (True, False):
        monkeypatch.setattr(machine, "has_fast_bf16", lambda device, fast=fast: fast)
        keys[fast] = make_key(project, "pairs", auto, BEFORE)
    assert keys[True] != keys[False] == make_key(project, "pairs", plain, BEFORE)


def test_times_of_one_core_are_not_those_of_two(project: Path, params: Params) -> None:
    before, keys = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            keys.append(
                [make_key(project, stage, params, BEFORE) for stage in ("baselines", "pairs")]
            )
    finally:
        torch.set_num_threads(before)
    assert keys[0][0] != keys[1][0] and keys[0][1] == keys[1][1]


def test_other_weights_in_the_same_file_are_another_input(project: Path, params: Params) -> None:
    tree = PIPELINE["stages"] | {"features": {"params": ["encoder"], "deps": [], "outs": []}}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": tree}))
    weights = project / "weights.safetensors"
    weights.write_bytes(b"first")
    encoder = dataclasses.replace(params.encoder, weights=str(weights))
    own = dataclasses.replace(params, encoder=encoder)
    first = make_key(project, "features", own, {})
    assert make_key(project, "features", own, {}) == first
    weights.write_bytes(b"second")
    assert make_key(project, "features", own, {}) != first


class Stage:
    """A stage that writes a file, and counts its runs."""

    runs = 0

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def run(self, params: Params, workspace: stage_cache.Workspace, log: object) -> None:
        Stage.runs += 1
        workspace.stage("pairs").mkdir(parents=True, exist_ok=True)
        (workspace.stage("pairs") / "pairs.txt").write_text(f"seed {params.seed}")
        if self.fails:
            raise RuntimeError("half way")


def test_results_are_shared_whole_or_not_at_all(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    folders = Folders(root=project, cache=project / "c", encodings=project / "e")
    before = {name: StageResult(each.content, project) for name, each in BEFORE.items()}

    def bring(seed: int, *, fails: bool = False) -> Path:
        monkeypatch.setattr(stage_cache, "import_module", lambda name: Stage(fails))
        own = dataclasses.replace(params, seed=seed)
        return stage_cache.run_cached(folders, "pairs", own, before, lines.append).data

    with pytest.raises(RuntimeError):
        bring(0, fails=True)
    assert not list((project / "c").glob("pairs-*")), "what failed is not kept"
    first = bring(0)
    assert (first / "pairs.txt").read_text() == "seed 0"
    assert bring(0) == first
    assert Stage.runs == 2 and len(lines) == 1, "it was taken from who had made it"
    for damaged in (first / "pairs.txt", first.parents[1] / stage_cache.SUMMARY):
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
        assert (bring(0) / "pairs.txt").read_text() == "seed 0"
        assert "is damaged; pairs runs again" in lines[-2]
    assert Stage.runs == 4
    assert (bring(1) / "pairs.txt").read_text() == "seed 1"
    assert (first / "pairs.txt").read_text() == "seed 0"


def test_a_stage_is_its_results_whoever_made_them(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other code that writes the same leaves what comes after it as it is."""
    folders = Folders(root=project, cache=project / "c", encodings=project / "e")
    before = {name: StageResult(each.content, project) for name, each in BEFORE.items()}
    monkeypatch.setattr(stage_cache, "import_module", lambda name: Stage())

    def bring(seed: int) -> StageResult:
        own = dataclasses.replace(params, seed=seed)
        return stage_cache.run_cached(folders, "pairs", own, before, print)

    first = bring(0)
    (project / "irgen" / "models" / "pairs.py").write_text("RULES = {'the same': None}\n")
    again, other = bring(0), bring(1)
    assert again.data != first.data and again.content == first.content != other.content
    assert stage_cache.read_seconds({"pairs": again}).keys() == {"pairs"}


def test_what_a_kill_has_left_is_gone_on_with_by_the_same_inputs_alone(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    class Slow(Stage):
        def run(self, params: Params, workspace: stage_cache.Workspace, log: object) -> None:
            seen.append((workspace.stage("pairs") / "pairs.txt").exists())
            super().run(params, workspace, log)

    folders = Folders(root=project, cache=project / "c", encodings=project / "e")
    before = {name: StageResult(each.content, project) for name, each in BEFORE.items()}
    for seed, fails in ((0, True), (1, False), (0, False)):
        monkeypatch.setattr(stage_cache, "import_module", lambda name, fails=fails: Slow(fails))
        own = dataclasses.replace(params, seed=seed)
        with suppress(RuntimeError):
            stage_cache.run_cached(folders, "pairs", own, before, print)
    assert seen == [False, False, True]
