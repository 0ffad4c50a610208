"""``irgen compare``: every method, identifier and ablation of the plan, as tables; and the commands
of its DVC stages, ``irgen point`` and ``irgen tables``."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from irgen.errors import StudyError
from irgen.study import report, tracking
from irgen.study import trial as trained
from irgen.study.plan import PLAN, TABLES, Plan, Trial, load_plan, load_trial_params, settings_file

PIPELINE = PLAN.with_name("dvc.yaml")


def run(options: Namespace) -> None:
    """Brings the points of the chosen sets up to date by DVC, one after the other, and the tables
    of what is there; prints where they are. What was done with the same inputs is not done again.

    Raises ParamsError for a set or plan that is not right, StudyError if a point failed; the tables
    are then of the others.
    """
    plan = load_plan(options.root)
    sets = tuple(options.sets) or plan.sets
    for name in sets:
        _check(options.root, plan, name)
    failed = []
    for name in sets:
        if _dvc(options.root, ["--single-item", f"{PIPELINE}:source@{name}"]):
            raise StudyError(f"the images of {name} could not be looked at: why is said above")
    for ablations in (False, True) if options.ablations else (False,):
        points = _points(plan, sets, ablations)
        for number, point in enumerate(points, 1):
            print(f"{point}, {number} of {len(points)}", flush=True)
            if _dvc(options.root, ["--single-item", stage_of(plan, point)]):
                failed.append(str(point))
        for name in sets:
            if _dvc(options.root, ["--single-item", f"{PIPELINE}:tables@{name}"]):
                failed.append(f"tables of {name}")
    for name in sets:
        made = options.root / TABLES / name / "comparison.md"
        if made.is_file():
            if not report.page_path(options.root, name).is_file():  # DVC does not know of it
                report.write_report(options.root, plan, name)
            print(f"Tables: {made.resolve()}")
            print(f"Page: {report.page_path(options.root, name).resolve()}")
    _publish(options.root)
    if failed:
        raise StudyError(
            f"not everything was compared ({', '.join(failed)}): what failed says why above; run "
            "the same command again, and it goes on from there"
        )


def _points(plan: Plan, sets: tuple[str, ...], ablations: bool) -> list[Trial]:
    """Every point compared; with ``ablations`` those of the ablations instead. All variants of a
    seed come before the next seed's, so that half a comparison makes whole tables."""
    seeds, names = (plan.ablation_seeds, plan.ablated) if ablations else (plan.seeds, plan.compared)
    return [
        Trial(set=each, variant=name, seed=seed)
        for seed in seeds
        for each in sets
        for name in names
    ]


def stage_of(plan: Plan, point: Trial) -> str:
    """What DVC calls the stage of a point."""
    kind = "point" if point.variant in plan.compared else "ablation"
    return f"{PIPELINE}:{kind}@{point.set}-{point.variant}-{point.seed}"


def _check(root: Path, plan: Plan, name: str) -> None:
    """Raises ParamsError unless all settings of a set make sense."""
    if name not in plan.sets:
        settings_file(root, name)
        known = ", ".join(plan.sets)
        raise StudyError(f"{name} is not in {PLAN}: add it to sets there ({known})")
    for variant in plan.variants:
        load_trial_params(root, plan, Trial(set=name, variant=variant, seed=plan.seeds[0]))


def _dvc(root: Path, arguments: list[str]) -> int:
    """``dvc repro`` in the project, its output as it comes, so that a kill leaves DVC's files
    whole; returns its status."""
    if not (root / ".dvc").is_dir():
        raise StudyError(f"{root.resolve()} is no DVC project: run from the project's root")
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "flows.lockfile", "--wait-for-lock", "repro", *arguments]
    settings = {"PATH": search, "DVC_NO_ANALYTICS": "1", "DVC_STUDIO_OFFLINE": "1"}
    return subprocess.run(command, cwd=root, env=os.environ | settings).returncode


def run_source(options: Namespace) -> None:
    """Looks at a set's images. Raises SourceError if they cannot be had."""
    trained.write_source(options.root, load_plan(options.root), options.set)


def run_point(options: Namespace) -> None:
    """Runs one point. Raises what its stages raise."""
    plan = load_plan(options.root)
    point = Trial(set=options.set, variant=options.variant, seed=options.seed)
    params = load_trial_params(options.root, plan, point)

    def tell(line: str) -> None:
        print(f"{point}: {line}", flush=True)

    folder = trained.run(options.root, plan, point, tell)
    tracking.log_trial(options.root, plan, point, params, folder)


def run_tables(options: Namespace) -> None:
    """Writes the tables of a set. Raises ArtifactError if nothing was measured yet."""
    plan = load_plan(options.root)
    folder = report.write_report(options.root, plan, options.set)
    first = Trial(set=options.set, variant=plan.standard, seed=plan.seeds[0])
    params = load_trial_params(options.root, plan, first)
    page = report.page_path(options.root, options.set)
    tracking.log_tables(options.root, plan, options.set, params, folder, page)


def _publish(root: Path) -> None:
    """Brings what was compared to MLflow; if it does not answer, that is told, and done later."""
    from irgen.errors import TrackingError
    from irgen.tracking import mlflow_store as tracked
    from irgen.tracking import sync
    from irgen.tracking.provenance import project

    try:
        sync.publish_all(project(root))
    except TrackingError as error:
        print(f"tracking: {error}; the results are logged later (irgen publish)", file=sys.stderr)
    else:
        print(f"MLflow: {tracked.shown(project(root))}")
