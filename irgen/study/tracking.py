"""Comparisons as they are tracked: a run for the comparison of a set, one below it for each point.

Written as run logs, like a stage's run, and synced with them; the same point again, with the same
inputs, is the same run.
"""

from pathlib import Path
from typing import Any

from irgen.errors import redact
from irgen.files import digest, file_digest, read_json
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.study.plan import Plan, Trial, params_of
from irgen.tracking import locations, run_log, stage_facts

POINT, TABLES = "point", run_log.TABLES


def comparison_of(root: Path, plan: Plan, name: str) -> str:
    """The key of a set's comparison: other settings of the set make another comparison."""
    first = Trial(set=name, variant=plan.standard, seed=0)
    return f"{name}-{digest(flatten(params_of(root, plan, first)))[:8]}"


def tell_point(root: Path, plan: Plan, point: Trial, params: Params, folder: Path) -> None:
    """Leaves the results of a point, below ``folder``, for MLflow."""
    variant = plan.variants[point.variant]
    about = digest(file_digest(folder / "metrics.json"), flatten(params))[:8]
    build = f"{point.set}-{point.variant}-{point.seed}-{about}"
    tags = {
        "irgen.comparison": comparison_of(root, plan, point.set),
        "irgen.point": f"{variant.title}, seed {point.seed}",
        "irgen.set": point.set,
        "irgen.table": variant.table,
        "irgen.variant": point.variant,
    }
    beginning = stage_facts.describe_begin(POINT, params, root)
    beginning |= {"build": build, "params": variant.changes}
    values = stage_facts.flatten_numbers(read_json(folder / "metrics.json"))
    for method, times in read_json(folder / "latency.json")["methods"].items():
        values |= {f"{method}/{name}": value for name, value in times.items()}
    spread = read_json(folder / "about.json")["identifiers"]
    values |= {f"identifiers/{name}": value for name, value in spread.items()}
    files = stage_facts.describe_files(folder)
    _tell(root, beginning | {"tags": beginning["tags"] | tags}, files, values, summary=values)


def tell_tables(
    root: Path, plan: Plan, name: str, params: Params, folder: Path, page: Path
) -> None:
    """Leaves the tables of a set's comparison, below ``folder``, and its page for the run that
    stands for it."""
    comparison = comparison_of(root, plan, name)
    beginning = stage_facts.describe_begin(TABLES, params, root)
    tags = beginning["tags"] | {"irgen.comparison": comparison}
    about = digest(file_digest(folder / "comparison.json"))[:8]
    beginning |= {"build": f"{comparison}-{TABLES}-{about}", "tags": tags}
    files = stage_facts.describe_files(folder) + stage_facts.describe_files(
        page.parent, pattern=page.name
    )
    _tell(root, beginning, files, {}, summary={})


def _tell(
    root: Path,
    beginning: dict[str, Any],
    files: list[dict[str, Any]],
    values: dict[str, float],
    summary: dict[str, float],
) -> None:
    """Writes the run log, unless it is there. A process that is killed leaves none, so that the
    next one writes it."""
    folder = locations.run_logs(root) / run_log.safe_name(beginning["build"])
    path = folder / f"{beginning['stage']}.jsonl"
    if path.exists():
        return
    end = {
        "status": "FINISHED",
        "error": "",
        "files": files,
        "tables": [],
        "summary": summary,
        "build_tags": {},
        "monitor": None,
    }
    metrics = {"values": values, "step": 0}
    run_log.write(path, [("begin", redact(beginning)), ("metrics", metrics), ("end", end)])
