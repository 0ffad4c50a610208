"""``params.yaml`` is read strictly: a mistake is one sentence that names its place and remedy."""

import copy
import dataclasses
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from irgen.errors import ParamsError
from irgen.params import Params, Tokenizer, check, load
from irgen.params.reference import list_settings
from irgen.params.strict import flatten, parse
from irgen.study.plan import load_plan, settings_file

ROOT = Path(__file__).resolve().parents[1]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text())
SECTIONS = [name for name in TREE if isinstance(TREE[name], dict)]
REQUIRED = {
    ("download", "source"),
    *(("encoder", key) for key in ("name", "weights", "image_size")),
}
TOKENIZER = {field.name for field in dataclasses.fields(Tokenizer)}
KEYS = [(section, key) for section in SECTIONS for key in TREE[section]]


def changed(section: str, key: str, value: object) -> dict:
    tree = copy.deepcopy(TREE)
    tree[section][key] = value
    return tree


@pytest.mark.parametrize(
    "path",
    [ROOT / "params.yaml", *(settings_file(ROOT, name) for name in load_plan(ROOT).sets)],
    ids=str,
)
def test_every_params_file_of_the_project_loads(path: Path) -> None:
    assert isinstance(load(path), Params)


def test_a_misspelt_key_names_the_nearest_valid_one() -> None:
    tree = copy.deepcopy(TREE)
    tree["tokenizer"]["levls"] = tree["tokenizer"].pop("levels")
    with pytest.raises(ParamsError, match=r"tokenizer: unknown key 'levls'; did you mean 'levels'"):
        parse(Params, tree, where="params.yaml")


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_key_that_is_left_out_has_its_default_unless_it_must_be_given(
    section: str, key: str
) -> None:
    tree = copy.deepcopy(TREE)
    del tree[section][key]
    if (section, key) in REQUIRED:
        with pytest.raises(ParamsError, match=f"params.yaml: {section}: key '{key}' is missing"):
            parse(Params, tree, where="params.yaml")
    else:
        assert isinstance(parse(Params, tree, where="params.yaml"), Params)


def test_the_values_of_params_yaml_are_the_defaults_of_their_classes() -> None:
    least = {section: {key: TREE[section][key]} for section, key in REQUIRED}
    least = {"download": least["download"], "encoder": TREE["encoder"]}
    assert parse(Params, least, where="params.yaml") == load(ROOT / "params.yaml")


def test_params_yaml_is_short_and_has_every_key_that_a_stage_depends_on() -> None:
    assert len((ROOT / "params.yaml").read_text().splitlines()) <= 70
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for key in {key for stage in stages.values() for key in stage.get("params", [])}:
        section, *inner = key.split(".")
        assert section in TREE and all(name in TREE[section] for name in inner), key


def test_the_reference_lists_every_setting_with_its_default_and_a_description() -> None:
    settings = {setting.name: setting for setting in list_settings()}
    assert settings.keys() == flatten(load(ROOT / "params.yaml")).keys()
    assert all(setting.description for setting in settings.values())
    assert settings["tokenizer.levels"].default == "4"
    assert settings["tokenizer.levels"].allowed == "integer, 1 to 16"
    assert settings["pairs.rule"].allowed == "near_same_label, near, same_label"
    assert settings["encoder.name"].default == "must be given"


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_key_of_another_type_is_named_with_its_section(section: str, key: str) -> None:
    with pytest.raises(ParamsError, match=rf"{section}: {key}"):
        parse(Params, changed(section, key, {1, 2}), where="params.yaml")


@given(st.text(min_size=1).filter(lambda key: key not in TOKENIZER))
def test_no_unknown_key_is_let_through(key: str) -> None:
    with pytest.raises(ParamsError, match="unknown key"):
        parse(Params, changed("tokenizer", key, 1), where="params.yaml")


@given(st.one_of(st.booleans(), st.text(), st.none(), st.floats(), st.lists(st.integers())))
def test_a_count_is_an_integer_and_nothing_else(value: object) -> None:
    with pytest.raises(ParamsError, match=r"expected a (whole|finite) number"):
        parse(Params, changed("tokenizer", "levels", value), where="params.yaml")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("tokenizer", "levels", 0),
        ("tokenizer", "codebook", 1),
        ("catalog", "query_fraction", 1.0),
        ("evaluate", "candidates", 5),
        ("evaluate", "cutoffs", [0, 10]),
        ("retriever", "heads", 5),
        ("drift", "minimum_images", 0),
        ("gate", "margin", -0.1),
        ("gate", "metric", "precision/7"),
        ("gate", "metric", "map/R"),
        ("compute", "batch_size", 0),
        ("compute", "batch_size", 1_000_000_000),
        ("compute", "threads", -1),
        ("encoder", "image_size", 1_000_000),
        ("augment", "scale", -0.1),
        ("augment", "shear", 90.0),
        ("augment", "colour", 7.0),
        ("tokenizer", "levels", 10**400),
        ("tokenizer", "learning_rate", 1000.0),
        ("tokenizer", "dropout", 1.0),
        ("retriever", "gradient_clip", 0.0),
        ("retriever", "layers", 10**6),
        ("evaluate", "beams", 10**7),
        ("drift", "precision_drop", -2.0),
        ("drift", "unseen_codes", -0.1),
    ],
)
def test_a_value_out_of_range_says_what_is_allowed(section: str, key: str, value: object) -> None:
    with pytest.raises(ParamsError, match=rf"params.yaml: {section}: (\w+: )?.*(allowed|multiple)"):
        check(parse(Params, changed(section, key, value), where="params.yaml"))


@pytest.mark.parametrize("seed", [-1, 2**31, 10**30])
def test_a_seed_fits_every_generator(seed: int) -> None:
    with pytest.raises(ParamsError, match=r"params.yaml: seed: .* out of range; allowed: at"):
        parse(Params, {**TREE, "seed": seed}, where="params.yaml")


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "encoder"])
def test_no_number_is_without_bounds(section: str) -> None:
    kind = typing.get_type_hints(Params)[section]
    values = parse(kind, TREE[section], where=section)
    for field in dataclasses.fields(kind):
        if type(getattr(values, field.name)) in (int, float):
            for value in (-(10**12), 10**12):
                with pytest.raises(ParamsError, match=f"{section}: {field.name}: .* out of range"):
                    parse(Params, changed(section, field.name, value), where="params.yaml")


def test_nan_is_no_number() -> None:
    with pytest.raises(ParamsError, match="query_fraction: expected a finite number, found nan"):
        parse(Params, changed("catalog", "query_fraction", float("nan")), where="params.yaml")


def test_a_number_that_yaml_reads_as_text_is_explained() -> None:
    tree = changed("tokenizer", "learning_rate", yaml.safe_load("1e-3"))
    with pytest.raises(ParamsError, match=r"write 1.0e-3"):
        parse(Params, tree, where="params.yaml")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (
            "tracking",
            "experiment",
            False,
            "yes, no, on and off as true or false: put text in quote",
        ),
        ("tracking", "experiment", 123, "found 123 .*put text in quotes"),
        ("tokenizer", "levels", "4", "found '4' .take the quotes away"),
    ],
)
def test_what_yaml_makes_of_a_value_is_explained(
    section: str, key: str, value: object, message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        parse(Params, changed(section, key, value), where="params.yaml")


def test_whole_numbers_and_lists_become_floats_and_tuples() -> None:
    tree = changed("tokenizer", "weight_decay", 1)
    params = parse(Params, tree, where="params.yaml")
    assert params.tokenizer.weight_decay == 1.0
    assert isinstance(params.tokenizer.weight_decay, float)
    assert params.evaluate.cutoffs == tuple(TREE["evaluate"]["cutoffs"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (": [", "not valid YAML"),
        ("seed: 0\nseed: 1", "key 'seed' is given twice, first in line 1 .*line 2"),
        ("a: {seed: 0, 'seed': 1}", "key 'seed' is given twice"),
        ("a:\n\tseed: 0", "line 2.* blanks, not with tabs"),
        ("seed: 010", "010 is no plain number.*line 1"),
        ("seed: 1:30", "1:30 is no plain number"),
        ("seed: &a [*a]", "more than 20 lists or sections lie in each other"),
        ("tracking: {experiment: 2024-01-01}", "looks like a date in quotes"),
        ("tracking: {experiment: 2024-02-31}", "not valid YAML: day"),
        ("seed: .inf", "finite number, found inf"),
        ("seed: 0\n---\nseed: 1", "single document"),
        ("- 1", "expected a section"),
        ("", "expected a section"),
        ("1: 2", "unknown key 1"),
    ],
)
def test_a_file_that_is_no_parameters_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=message):
        load(path)
    with pytest.raises(ParamsError, match="is missing"):
        load(tmp_path / "none.yaml")


def test_flattening_gives_every_value_its_dotted_key() -> None:
    flat = flatten(load(ROOT / "params.yaml"))
    assert flat["seed"] == 0 and flat["evaluate.cutoffs"] == [1, 10, 20]
    assert flat["baselines.cgd.margin"] == 0.1
    assert flat["encoder.options"] == TREE["encoder"]["options"]


@pytest.mark.parametrize(
    ("method", "key", "expected"),
    [
        ("hnsw", "serch", r"baselines: hnsw: unknown key 'serch'; did you mean 'search'"),
        ("cgd", "margin", r"baselines: cgd: margin: expected a number, found \[\]"),
    ],
)
def test_a_mistake_in_a_section_within_a_section_is_named_with_both(
    method: str, key: str, expected: str
) -> None:
    tree = copy.deepcopy(TREE)
    tree["baselines"] = {method: {key: []}}
    with pytest.raises(ParamsError, match=expected):
        parse(Params, tree, where="params.yaml")
