"""Comparisons as they are tracked: a run for the comparison of a set, one below it for each trial.

Written as journals, like a stage's run, and published with them; the same point again, with the
same inputs, is the same run.
"""

from pathlib import Path
from typing import Any

from irgen.errors import redact
from irgen.files import digest, file_digest, read_json
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.study.plan import Plan, Trial, load_trial_params
from irgen.tracking import provenance, recorder, run_log

POINT, TABLES = "point", "tables"


def comparison_key(root: Path, plan: Plan, name: str) -> str:
    """The key of a set's comparison: other settings of the set make another comparison."""
    first = Trial(set=name, variant=plan.standard, seed=0)
    return f"{name}-{digest(flatten(load_trial_params(root, plan, first)))[:8]}"


def log_trial(root: Path, plan: Plan, trial: Trial, params: Params, folder: Path) -> None:
    """Leaves the results of a point, below ``folder``, for MLflow."""
    variant = plan.variants[trial.variant]
    about = digest(file_digest(folder / "metrics.json"), flatten(params))[:8]
    build = f"{trial.set}-{trial.variant}-{trial.seed}-{about}"
    tags = {
        "irgen.comparison": comparison_key(root, plan, trial.set),
        "irgen.point": f"{variant.title}, seed {trial.seed}",
        "irgen.set": trial.set,
        "irgen.table": variant.table,
        "irgen.variant": trial.variant,
    }
    beginning = recorder.beginning(POINT, params, root)
    beginning |= {"build": build, "params": variant.changes}
    values = recorder.numbers(read_json(folder / "metrics.json"))
    for method, times in read_json(folder / "latency.json")["methods"].items():
        values |= {f"{method}/{name}": value for name, value in times.items()}
    spread = read_json(folder / "about.json")["identifiers"]
    values |= {f"identifiers/{name}": value for name, value in spread.items()}
    files = recorder.described(folder)
    _tell(root, beginning | {"tags": beginning["tags"] | tags}, files, values, summary=values)


def log_tables(root: Path, plan: Plan, name: str, params: Params, folder: Path, page: Path) -> None:
    """Leaves the tables of a set's comparison, below ``folder``, and its page for the run that
    stands for it."""
    comparison = comparison_key(root, plan, name)
    beginning = recorder.beginning(TABLES, params, root)
    tags = beginning["tags"] | {"irgen.comparison": comparison}
    about = digest(file_digest(folder / "comparison.json"))[:8]
    beginning |= {"build": f"{comparison}-{TABLES}-{about}", "tags": tags}
    files = recorder.described(folder) + recorder.described(page.parent, only=page.name)
    _tell(root, beginning, files, {}, summary={})


def _tell(
    root: Path,
    beginning: dict[str, Any],
    files: list[dict[str, Any]],
    values: dict[str, float],
    summary: dict[str, float],
) -> None:
    """Writes the journal, unless it is there. A process that is killed leaves none, so that the
    next one writes it."""
    folder = provenance.journals(root) / run_log.plain(beginning["build"])
    path = folder / f"{beginning['stage']}.jsonl"
    if path.exists():
        return
    end = {
        "status": "FINISHED",
        "trouble": "",
        "artifacts": files,
        "tables": [],
        "summary": summary,
        "standing": {},
        "monitor": None,
    }
    metrics = {"values": values, "step": 0}
    run_log.write(path, [("begin", redact(beginning)), ("metrics", metrics), ("end", end)])
