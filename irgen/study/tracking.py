"""Log comparisons for MLflow: a run for each set's comparison, with a run for each trial below it.

They are run logs, like those of stages, and are synced with them. The same trial with the same
inputs is logged once.
"""

from pathlib import Path
from typing import Any

from irgen.errors import redact
from irgen.files.digests import digest, file_digest
from irgen.files.records import read_json
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.study.plan import Plan, Trial, load_trial_params
from irgen.tracking import locations, run_log, stage_facts
from irgen.tracking.run_log import TABLES, TRIAL


def comparison_key(root: Path, plan: Plan, name: str) -> str:
    """Return the key of a set's comparison. It changes with the settings of the set."""
    first = Trial(set=name, variant=plan.standard, seed=0)
    return f"{name}-{digest(flatten(load_trial_params(root, plan, first)))[:8]}"


def log_trial(root: Path, plan: Plan, trial: Trial, params: Params, folder: Path) -> None:
    """Log the results of a trial in ``folder``."""
    variant = plan.variants[trial.variant]
    content = digest(file_digest(folder / "metrics.json"), flatten(params))[:8]
    build = f"{trial.set}-{trial.variant}-{trial.seed}-{content}"
    tags = {
        "irgen.comparison": comparison_key(root, plan, trial.set),
        "irgen.trial": f"{variant.title}, seed {trial.seed}",
        "irgen.set": trial.set,
        "irgen.table": variant.table,
        "irgen.variant": trial.variant,
    }
    beginning = stage_facts.describe_begin(TRIAL, params, root)
    beginning |= {"build": build, "all_params": flatten(params)}
    values = stage_facts.flatten_numbers(read_json(folder / "metrics.json"))
    for method, times in read_json(folder / "latency.json")["methods"].items():
        values |= {f"{method}/{name}": value for name, value in times.items()}
    spread = read_json(folder / "about.json")["identifiers"]
    values |= {f"identifiers/{name}": value for name, value in spread.items()}
    files = stage_facts.describe_files(folder)
    _write_log(root, beginning | {"tags": beginning["tags"] | tags}, files, values)


def log_tables(root: Path, plan: Plan, name: str, params: Params, folder: Path, page: Path) -> None:
    """Log the tables of a set's comparison in ``folder``, and its page."""
    comparison = comparison_key(root, plan, name)
    beginning = stage_facts.describe_begin(TABLES, params, root)
    tags = beginning["tags"] | {"irgen.comparison": comparison}
    content = digest(file_digest(folder / "comparison.json"))[:8]
    beginning |= {"build": f"{comparison}-{TABLES}-{content}", "tags": tags}
    files = stage_facts.describe_files(folder)
    files += stage_facts.describe_files(page.parent, pattern=page.name)
    _write_log(root, beginning, files, {})


def _write_log(
    root: Path,
    beginning: dict[str, Any],
    files: list[dict[str, Any]],
    values: dict[str, float],
) -> None:
    """Write a finished run log, unless it exists. It is written whole or not at all."""
    folder = locations.run_logs(root) / run_log.safe_name(beginning["build"])
    path = folder / f"{beginning['stage']}.jsonl"
    if path.exists():
        return
    end = {"status": "FINISHED", "files": files}
    metrics = {"values": values, "step": 0}
    run_log.write(path, [("begin", redact(beginning)), ("metrics", metrics), ("end", end)])
