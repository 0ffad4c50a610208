"""``irgen results``: the methods table and the report's path."""

import os
from pathlib import Path

import click

from irgen.commands.options import note, params_option, root_option
from irgen.commands.stage import STAGES, run_stage
from irgen.errors import ArtifactError, ParamsError
from irgen.files.workspace import Workspace


@click.command()
@root_option
@params_option
def results(root: Path, params: Path | None) -> None:
    """Print the table of methods, the stages that ran, the path of the report, and warnings.

    A report that is missing or older than the results is written again first.
    """
    from irgen.catalog.datasets.protocols import describe_protocol
    from irgen.evaluation.warnings import format_warnings
    from irgen.files.records import read_json
    from irgen.report import comparison

    workspace = Workspace.at(root)
    metrics = workspace.stage("evaluate") / "metrics.json"
    if not metrics.exists():
        raise ArtifactError(f"{metrics} is missing: nothing is evaluated yet; run dvc repro first")
    page = workspace.reports / "index.html"
    if not page.exists() or page.stat().st_mtime < metrics.stat().st_mtime:
        try:
            run_stage("report", root, params)
        except ParamsError as error:  # the results themselves need no settings
            note(f"the report does not show these results yet: {error}")
    measured = comparison.read(metrics, workspace.reports / "latency.json")
    print(comparison.format_table(comparison.build_table(measured)), end="\n\n")
    protocol = workspace.stage("catalog") / "protocol.json"
    if protocol.exists():
        print(f"Protocol {describe_protocol(read_json(protocol))}")
    if line := list_stages_run(root):
        print(line)
    if page.exists():
        print(f"Report: {page.resolve()}")
    warnings = workspace.stage("report") / "warnings.json"
    if warnings.exists() and (texts := read_json(warnings)):
        print(format_warnings(texts))


def list_stages_run(root: Path) -> str:
    """List the stages that ran in the build ``IRGEN_BUILD``; return "" without one."""
    build = os.environ.get("IRGEN_BUILD")
    if not build:
        return ""
    from irgen.tracking import locations, run_log

    folder = locations.run_logs(root) / run_log.safe_name(build)
    ran = {path.stem.partition("-")[0] for path in folder.glob("*.jsonl")} & STAGES.keys()
    if not ran:
        return (
            "Nothing had to be done: source, code and parameters are unchanged since the last run. "
            "These are its results."
        )
    return f"Ran: {', '.join(name for name in STAGES if name in ran)}."
