"""The plan of a comparison: what it may say, and what comes of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from irgen.commands.compare import list_trials, stage_of
from irgen.errors import ParamsError
from irgen.params import load
from irgen.params.strict import flatten
from irgen.study.plan import PLAN, TABLES, Plan, Trial, load_plan, load_trial_params, settings_file

TREE = {
    "sets": ["small"],
    "seeds": [0, 1],
    "ablation_seeds": [0],
    "compared": ["plain", "short"],
    "ablated": ["wide"],
    "variants": {
        "plain": {"table": "identifiers", "title": "as it is", "changes": {}},
        "short": {"table": "identifiers", "title": "M = 1", "changes": {"tokenizer.levels": 1}},
        "wide": {"table": "beams", "title": "W = 99", "changes": {"evaluate.beams": 99}},
    },
}


@pytest.fixture
def project(tmp_path: Path, root: Path) -> Path:
    """Return a project with a plan and the settings of one set."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / PLAN).write_text(yaml.safe_dump(TREE))
    (tmp_path / "experiments" / "small.yaml").write_text((root / "params.yaml").read_text())
    return tmp_path


def with_changes(project: Path, **changes: object) -> Path:
    (project / PLAN).write_text(yaml.safe_dump(TREE | changes))
    return project


def test_a_point_has_its_set_s_settings_its_changes_and_its_seed(project: Path) -> None:
    plan = load_plan(project)
    own = load(project / "experiments" / "small.yaml")
    params = load_trial_params(project, plan, Trial(set="small", variant="short", seed=1))
    expected = flatten(own) | {"seed": 1, "tokenizer.levels": 1}
    assert flatten(replace(params, baselines=own.baselines)) == expected


def test_descriptors_get_the_tokenizer_s_training_unless_the_set_says_otherwise(
    project: Path,
) -> None:
    path = project / "experiments" / "small.yaml"
    path.write_text(f"{path.read_text()}\nbaselines: {{cgd: {{width: 7}}}}\n")
    params = load_trial_params(
        project, load_plan(project), Trial(set="small", variant="plain", seed=0)
    )
    cgd, irt_r, tokenizer = params.baselines.cgd, params.baselines.irt_r, params.tokenizer
    assert (cgd.width, irt_r.width) == (7, tokenizer.width)
    assert cgd.steps == irt_r.steps == tokenizer.steps


def test_a_variant_runs_on_its_own_sets_and_baselines_with_the_first_seed(project: Path) -> None:
    short = TREE["variants"]["short"] | {"sets": ["other"]}
    changes = {"sets": ["small", "other"], "variants": TREE["variants"] | {"short": short}}
    plan = load_plan(with_changes(project, **changes))
    trials = list_trials(plan, plan.sets, plan.compared)
    assert [str(trial) for trial in trials] == [
        *("small/plain/0", "other/plain/0", "other/short/0"),
        *("small/plain/1", "other/plain/1", "other/short/1"),
    ]
    measured = [str(trial) for trial in trials if plan.measures_baselines(trial)]
    assert measured == ["small/plain/0", "other/plain/0"]
    with pytest.raises(ParamsError, match="short: sets: 'other' is not among sets"):
        load_plan(with_changes(project, **changes | {"sets": ["small"]}))


def test_a_plan_may_be_without_ablations(project: Path) -> None:
    variants = {name: each for name, each in TREE["variants"].items() if name != "wide"}
    plan = load_plan(with_changes(project, ablated=[], ablation_seeds=[], variants=variants))
    assert plan.ablated == () and plan.compared == ("plain", "short")


def test_a_change_of_a_baseline_is_refused_for_it_would_do_nothing(project: Path) -> None:
    odd = {"table": "odd", "title": "odd", "changes": {"baselines.hnsw.search": 9}}
    with pytest.raises(ParamsError, match=r"baselines\.hnsw\.search would change nothing"):
        load_plan(with_changes(project, variants=TREE["variants"] | {"wide": odd}))


def test_seeds_differ_between_what_is_compared_and_what_is_ablated(project: Path) -> None:
    plan = load_plan(project)
    assert plan.standard == "plain"
    assert plan.seeds_of("short") == (0, 1) and plan.seeds_of("wide") == (0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compared": ["plain", "none"]}, "'none' is listed, but not among variants"),
        ({"ablated": ["wide", "short"]}, "'short' is listed twice"),
        ({"ablated": ["short"], "compared": ["plain"]}, "'wide' is neither"),
        ({"seed": [0]}, "unknown key 'seed'; did you mean 'seeds'"),
        ({"seeds": [0, 0]}, "0 is listed twice"),
        ({"sets": ["small", "small"]}, "'small' is listed twice"),
        ({"sets": ["small.set"]}, "'small.set' cannot be in the name of a DVC stage"),
        ({"seeds": []}, "seeds: expected at least one"),
        ({"ablation_seeds": []}, "ablation_seeds: expected at least one"),
        ({"ablation_seeds": [3]}, "ablation_seeds: 3 is not among seeds .0, 1.: .* 'plain'"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(
    project: Path, changes: dict, message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        load_plan(with_changes(project, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.level": 3}, "unknown key 'level'; did you mean 'levels'"),
        ({"tokenizer.levels": 99}, "tokenizer: levels: 99 is out of range"),
        ({"tokenizer.levels": "3"}, "expected a whole number"),
    ],
)
def test_a_change_that_makes_no_sense_is_told(project: Path, changes: dict, message: str) -> None:
    odd = {"table": "odd", "title": "odd", "changes": changes}
    variants = TREE["variants"] | {"wide": odd}
    plan = load_plan(with_changes(project, variants=variants))
    with pytest.raises(ParamsError, match=message):
        load_trial_params(project, plan, Trial(set="small", variant="wide", seed=0))


def test_what_is_unknown_is_told_with_what_is_there(project: Path) -> None:
    plan = load_plan(project)
    with pytest.raises(ParamsError, match=r"'large' is no set: .* there are small"):
        settings_file(project, "large")
    with pytest.raises(ParamsError, match="no variant 'tall'; there are plain, short, wide"):
        load_trial_params(project, plan, Trial(set="small", variant="tall", seed=0))
    (project / PLAN).unlink()
    with pytest.raises(ParamsError, match=r"comparison.yaml is missing"):
        load_plan(project)


def test_the_project_s_own_plan_makes_sense_on_every_set(root: Path) -> None:
    plan = load_plan(root)
    assert isinstance(plan, Plan) and plan.sets
    for name in plan.sets:
        standard = load_trial_params(root, plan, Trial(set=name, variant=plan.standard, seed=0))
        own = load(settings_file(root, name))
        assert standard == replace(own, seed=0, baselines=standard.baselines)
        for variant in plan.variants:
            load_trial_params(root, plan, Trial(set=name, variant=variant, seed=0))


def test_every_set_of_the_plan_has_its_figures_among_dvc_s_plots(root: Path) -> None:
    pipeline = yaml.safe_load((root / PLAN).with_name("dvc.yaml").read_text())
    expected = [f"{TABLES.name}/{name}/figures" for name in load_plan(root).sets]
    assert pipeline["plots"] == expected


def test_dvc_has_a_stage_for_every_point(root: Path) -> None:
    plan = load_plan(root)
    with Repo(str(root)) as repo:
        stages = {f"{each.path_in_repo}:{each.name}" for each in repo.index.stages}
    points = [
        Trial(set=name, variant=variant, seed=seed)
        for name in plan.sets
        for variant in plan.variants
        for seed in plan.seeds_of(variant)
    ]
    assert {stage_of(plan, point) for point in points} <= stages


def test_every_set_s_settings_can_be_the_project_s_params_yaml(root: Path) -> None:
    """DVC needs each key that a stage depends on in the file."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"].values()
    keys = {key for stage in stages for key in stage.get("params", []) if isinstance(key, str)}
    for name in load_plan(root).sets:
        tree = yaml.safe_load(settings_file(root, name).read_text())
        for section, _, key in (each.partition(".") for each in keys):
            assert section in tree and (not key or key in tree[section]), f"{name}: {section} {key}"
