"""Hidden commands of a comparison: those that its DVC stages call (experiments/dvc.yaml), and one
that writes the settings of its sets anew."""

from pathlib import Path

import click

from irgen.commands.options import root_option
from irgen.params.strict import read_yaml
from irgen.study.plan import Trial, load_plan, load_trial_params, settings_file


@click.command(hidden=True)
@click.argument("names", nargs=-1, metavar="[SET]...")
@root_option
def presets(names: tuple[str, ...], root: Path) -> None:
    """Write the settings of each SET (default: all of the plan) anew: those that irgen init chooses
    today for its source and weights."""
    from irgen.commands.init import init

    for name in names or load_plan(root).sets:
        file = settings_file(root, name)
        tree = read_yaml(file)
        arguments = [tree["download"]["source"], "--params", str(file), "--force"]
        if (weights := tree["encoder"]["weights"]) not in ("none", "hub"):
            arguments += ["--weights", weights]
        init.main([*arguments, "--root", str(root)], standalone_mode=False)


@click.command(hidden=True)
@click.argument("name", metavar="SET")
@root_option
def source(name: str, root: Path) -> None:
    """Bring the images of a SET up to date and write their digest."""
    from irgen.study import trial as trials

    trials.write_source(root, load_plan(root), name)


@click.command(hidden=True)
@click.argument("name", metavar="SET")
@click.argument("variant")
@click.argument("seed", type=int)
@root_option
def trial(name: str, variant: str, seed: int, root: Path) -> None:
    """Train and evaluate one VARIANT of a SET with one SEED; keep the results in
    experiments/results. Stages that another trial ran with the same inputs are shared."""
    from irgen.study import tracking
    from irgen.study import trial as trials

    plan = load_plan(root)
    chosen = Trial(set=name, variant=variant, seed=seed)
    params = load_trial_params(root, plan, chosen)
    folder = trials.run(root, plan, chosen, lambda line: print(f"{chosen}: {line}", flush=True))
    tracking.log_trial(root, plan, chosen, params, folder)


@click.command(hidden=True)
@click.argument("name", metavar="SET")
@root_option
def tables(name: str, root: Path) -> None:
    """Write the tables, figures and page of a SET's results."""
    from irgen.study import report, tracking

    plan = load_plan(root)
    folder = report.write_report(root, plan, name)
    first = Trial(set=name, variant=plan.standard, seed=plan.seeds[0])
    page = report.page_path(root, name)
    tracking.log_tables(root, plan, name, load_trial_params(root, plan, first), folder, page)
