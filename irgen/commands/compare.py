"""``irgen compare``: compare methods, identifiers and ablations over data sets and seeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click

from irgen.commands.options import note, root_option
from irgen.errors import StudyError, TrackingError
from irgen.files.locks import mend_lock_file
from irgen.study.plan import (
    PLAN,
    TABLES,
    Plan,
    Trial,
    load_plan,
    load_trial_params,
    settings_file,
)

PIPELINE = PLAN.with_name("dvc.yaml")
PIPELINE_LOCK = PLAN.with_name("dvc.lock")
BUSY_SECONDS = 60.0


@click.command()
@click.argument("sets", nargs=-1, metavar="[SET]...")
@click.option("--ablations", is_flag=True, help="Run the plan's ablations too, last.")
@click.option(
    "--only",
    multiple=True,
    metavar="VARIANT",
    help="Run this variant of the plan, compared or ablated, and no others. Repeat it for several.",
)
@root_option
def compare(sets: tuple[str, ...], ablations: bool, only: tuple[str, ...], root: Path) -> None:
    """Run the plan, experiments/comparison.yaml, for each SET (default: all sets of the plan).

    The settings of a set are experiments/SET.yaml. Every variant of the plan is trained with every
    seed. Then tables of all methods and variants, with significance, are written to
    experiments/tables/SET as HTML, Markdown and LaTeX, and logged to MLflow. What the served index
    gains on all sets is in experiments/tables/gains.md.

    DVC skips work that was done with the same inputs. If the command was killed, run it again.
    """
    plan = load_plan(root)
    sets = sets or plan.sets
    for name in sets:
        check_set(root, plan, name)
    for name in only:
        check_variant(plan, name)
    for name in sets:
        if run_dvc(root, f"{PIPELINE}:source@{name}"):
            raise StudyError(f"the images of {name} cannot be read: the reason is printed above")
    failed = []
    for variants in [only] if only else [plan.compared, *([plan.ablated] if ablations else [])]:
        failed += run_trials(root, plan, list_trials(plan, sets, variants))
        failed += [
            f"tables of {name}" for name in sets if run_dvc(root, f"{PIPELINE}:tables@{name}")
        ]
    print_tables(root, plan, sets)
    send_to_mlflow(root)
    if failed:
        raise StudyError(
            f"not everything was compared ({', '.join(failed)}): the reasons are printed above; "
            "run the same command again, and it goes on from there"
        )


def check_set(root: Path, plan: Plan, name: str) -> None:
    """Raise StudyError for a set that is not in the plan, ParamsError for invalid settings."""
    if name not in plan.sets:
        settings_file(root, name)
        sets = ", ".join(plan.sets)
        raise StudyError(f"{name} is not in {PLAN}: add it to sets there ({sets})")
    for variant in plan.variants:
        load_trial_params(root, plan, Trial(set=name, variant=variant, seed=plan.seeds[0]))


def check_variant(plan: Plan, name: str) -> None:
    """Raise StudyError for a variant that is not in the plan."""
    if name not in plan.variants:
        variants = ", ".join(plan.variants)
        raise StudyError(f"{name} is no variant of {PLAN}; there are {variants}")


def list_trials(plan: Plan, sets: tuple[str, ...], variants: tuple[str, ...]) -> list[Trial]:
    """Return the trials of variants in order of seed. So half a comparison gives complete tables of
    fewer seeds."""
    return [
        Trial(set=name, variant=variant, seed=seed)
        for seed in plan.seeds
        for name in sets
        for variant in variants
        if seed in plan.seeds_of(variant) and name in plan.sets_of(variant)
    ]


def run_trials(root: Path, plan: Plan, trials: list[Trial]) -> list[str]:
    """Bring the results of trials up to date; return the names of those that failed."""
    failed = []
    for number, trial in enumerate(trials, 1):
        print(f"{trial}, {number} of {len(trials)}", flush=True)
        if run_dvc(root, stage_of(plan, trial)):
            failed.append(str(trial))
    return failed


def stage_of(plan: Plan, trial: Trial) -> str:
    """Return the DVC stage of a trial."""
    kind = "trial" if trial.variant in plan.compared else "ablation"
    return f"{PIPELINE}:{kind}@{trial.set}-{trial.variant}-{trial.seed}"


def run_dvc(root: Path, stage: str) -> int:
    """Run ``dvc repro`` for one stage, its output on the terminal; return its exit status. First
    restore a lock file that a killed DVC left incomplete. Repeat it while another DVC has the
    files, at most BUSY_SECONDS: a killed one has them until the system has removed its process."""
    if not (root / ".dvc").is_dir():
        raise StudyError(f"{root.resolve()} is not a DVC project: run from the project's root")
    if mend_lock_file(root / PIPELINE_LOCK, root / ".cache" / PIPELINE_LOCK):
        print(f"{PIPELINE_LOCK} was incomplete, since DVC was killed; it is restored")
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    options = ["--wait-for-lock", "repro", "--single-item", stage]
    command = [sys.executable, "-m", "dvc", *options]
    settings = {"PATH": search, "DVC_NO_ANALYTICS": "1", "DVC_STUDIO_OFFLINE": "1"}
    deadline = time.monotonic() + BUSY_SECONDS
    while status := subprocess.run(command, cwd=root, env=os.environ | settings).returncode:
        if not is_busy(root) or time.monotonic() > deadline:
            break
        print("another DVC process has these files: trying again")
        time.sleep(2)
    return status


def is_busy(root: Path) -> bool:
    """Tell whether a DVC process has files of the project, by DVC's own list of them."""
    try:
        return bool(json.loads((root / ".dvc" / "tmp" / "rwlock").read_text()))
    except (FileNotFoundError, ValueError):
        return False


def print_tables(root: Path, plan: Plan, sets: tuple[str, ...]) -> None:
    """Print the paths of each set's tables and page, and the gains on all sets; write a page that
    is missing."""
    from irgen.study import gains, report

    for name in sets:
        table = root / TABLES / name / "comparison.md"
        if table.is_file():
            page = report.page_path(root, name)
            if not page.is_file():  # DVC does not know of it
                report.write_report(root, plan, name)
            print(f"Tables: {table.resolve()}")
            print(f"Page: {page.resolve()}")
    print(gains.write_summary(root, plan.sets))


def send_to_mlflow(root: Path) -> None:
    """Send the results to MLflow. If it does not answer, print that they are sent later."""
    from irgen.tracking import mlflow_store, sync

    try:
        sync.sync_all(root)
    except TrackingError as error:
        note(f"{error}; the results are logged later (irgen sync-runs)")
    else:
        print(f"MLflow: {mlflow_store.format_uri(root)}")
