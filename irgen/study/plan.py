"""Load the plan of comparisons, ``experiments/comparison.yaml``, and the settings of its trials."""

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irgen.errors import ParamsError
from irgen.params import Params, Tokenizer, check, load
from irgen.params.strict import parse, read_yaml

PLAN = Path("experiments", "comparison.yaml")
RESULTS = PLAN.with_name("results")  # of trials
TABLES = PLAN.with_name("tables")
SOURCES = PLAN.with_name("sources")  # digests of each set's images
# Settings of the tokenizer that trained descriptors share, unless the set's settings name them:
SHARED = (
    "width",
    "hidden",
    "dropout",
    "steps",
    "batch_size",
    "learning_rate",
    "encoder_learning_rate",
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A set's own settings with ``changes`` (keys of params.yaml such as ``tokenizer.levels``);
    a row of ``table`` under ``title``. ``sets``: those that it is run on; empty: all."""

    table: str
    title: str
    changes: dict[str, Any]
    sets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``sets``: names of files ``experiments/<set>.yaml``. The variants in ``compared`` are run
    with every one of ``seeds``, those in ``ablated`` with ``ablation_seeds``, a subset. The first
    in ``compared`` is the standard variant: others are compared with it, and baselines are run with
    its settings and the first seed."""

    sets: tuple[str, ...]
    seeds: tuple[int, ...]
    ablation_seeds: tuple[int, ...]
    compared: tuple[str, ...]
    ablated: tuple[str, ...]
    variants: dict[str, Variant]

    @property
    def standard(self) -> str:
        """Return the variant that the others are compared with."""
        return self.compared[0]

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """Return the seeds that a variant is run with."""
        return self.seeds if variant in self.compared else self.ablation_seeds

    def sets_of(self, variant: str) -> tuple[str, ...]:
        """Return the sets that a variant is run on."""
        return self.variants[variant].sets or self.sets

    def measures_baselines(self, trial: "Trial") -> bool:
        """Tell whether a trial measures the baselines, too."""
        return trial.variant == self.standard and trial.seed == self.seeds[0]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training and evaluation: a variant of a set's settings with a seed."""

    set: str
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.set}/{self.variant}/{self.seed}"


def load_plan(root: Path) -> Plan:
    """Return the plan of the project at ``root``.

    Raises ParamsError for a plan that is missing or has an unknown key, for a name that cannot be
    part of a DVC stage's name, for an item that is listed twice, and for a variant that is listed
    and not described, or described and not listed.
    """
    plan: Plan = parse(Plan, read_yaml(root / PLAN), where=str(PLAN))
    _check_lists(plan)
    for name, variant in plan.variants.items():
        _check_changes(name, variant)
        for set_name in set(variant.sets) - set(plan.sets):
            raise ParamsError(f"{PLAN}: variants: {name}: sets: {set_name!r} is not among sets")
    return plan


def _check_lists(plan: Plan) -> None:
    """Raise ParamsError for an empty list, an item listed twice, and names and seeds that do not
    fit together."""
    listed = [*plan.compared, *plan.ablated]
    for key in ("sets", "seeds", "compared", *(["ablation_seeds"] if plan.ablated else [])):
        if not getattr(plan, key):
            raise ParamsError(f"{PLAN}: {key}: expected at least one, found an empty list")
    for values in (listed, plan.sets, plan.seeds, plan.ablation_seeds):
        for value in values:
            if list(values).count(value) > 1:
                raise ParamsError(f"{PLAN}: {value!r} is listed twice: once is enough")
    for seed in plan.ablation_seeds:
        if seed not in plan.seeds:
            seeds = ", ".join(map(str, plan.seeds))
            raise ParamsError(
                f"{PLAN}: ablation_seeds: {seed} is not among seeds ({seeds}): ablations are "
                f"compared with the variant {plan.standard!r}, which is run with those"
            )
    for name in (*plan.sets, *plan.variants):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ParamsError(
                f"{PLAN}: {name!r} cannot be in the name of a DVC stage: letters, digits, - and _"
            )
    for name in listed:
        if name not in plan.variants:
            raise ParamsError(f"{PLAN}: {name!r} is listed, but not among variants: describe it")
    for name in plan.variants.keys() - set(listed):
        raise ParamsError(f"{PLAN}: variant {name!r} is neither in compared nor in ablated")


def _check_changes(name: str, variant: Variant) -> None:
    """Raise ParamsError for a change that has no effect."""
    for key in variant.changes:
        if key == "seed":
            raise ParamsError(f"{PLAN}: variants: {name}: seed is no change: give it in seeds")
        if key.startswith("baselines"):
            raise ParamsError(
                f"{PLAN}: variants: {name}: {key} would change nothing: baselines are run with the "
                "first variant compared alone; set it in the set's own settings"
            )


def settings_file(root: Path, name: str) -> Path:
    """Return the path of a set's settings. Raises ParamsError if it is missing."""
    path = root / PLAN.parent / f"{name}.yaml"
    if not path.is_file():
        no_sets = {PLAN.stem, "dvc"}
        sets = sorted({file.stem for file in path.parent.glob("*.yaml")} - no_sets)
        raise ParamsError(
            f"{name!r} is no set: {path} is missing; there are {', '.join(sets) or 'none'}"
        )
    return path


def load_trial_params(root: Path, plan: Plan, trial: Trial) -> Params:
    """Return the parameters of a trial. Raises ParamsError for an unknown set, variant or key, and
    for values that are not allowed."""
    if trial.variant not in plan.variants:
        variants = ", ".join(plan.variants)
        raise ParamsError(f"{PLAN}: no variant {trial.variant!r}; there are {variants}")
    path = settings_file(root, trial.set)
    load(path)  # so that an error in the set's own settings names that file
    tree = read_yaml(path)
    for key, value in plan.variants[trial.variant].changes.items():
        tree = set_value(tree, key, value, where=f"{PLAN}: variants: {trial.variant}: changes")
    tree = set_value(tree, "seed", trial.seed, where=str(path))
    where = f"{path.name} as {trial.variant}"
    params: Params = parse(Params, tree, where=where)
    params = parse(Params, match_descriptors(tree, params.tokenizer), where=where)
    check(params)
    return params


def match_descriptors(tree: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the settings with SHARED settings of the tokenizer for the trained descriptors, so
    that a comparison favours neither; those that ``tree`` names stay."""
    tree = copy.deepcopy(tree)
    shared = {key: getattr(tokenizer, key) for key in SHARED}
    baselines = tree.setdefault("baselines", {})
    for name in ("cgd", "irt_r"):
        baselines[name] = shared | baselines.get(name, {})
    return tree


def set_value(tree: dict[str, Any], key: str, value: Any, *, where: str) -> dict[str, Any]:
    """Return the settings with another value at ``key``. Raise ParamsError if a part of ``key`` is
    not a section.

    >>> set_value({"tokenizer": {"levels": 4}}, "tokenizer.width", 2, where="here")
    {'tokenizer': {'levels': 4, 'width': 2}}
    """
    tree = copy.deepcopy(tree)
    section, (*sections, last) = tree, key.split(".")
    for name in sections:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ParamsError(f"{where}: {key!r} is not a setting: {name} is not a section")
    section[last] = value
    return tree
