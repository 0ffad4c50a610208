"""Search quality over several seeds: all stages for each, then a table of means and deviations.

    python benchmarks/quality.py experiments/clothing-224.yaml --seeds 0 1 2

Each seed runs in a process and a folder of its own below ``--folder``, all stages from download to
report; the seeds share a cache of encodings, so the first one's time is that of a first run. A
seed that was run with these very parameters before is not run again.
``benchmarks/results/`` keeps what came out, as JSON and as the table the README shows.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from irgen.cli import STAGES
from irgen.evaluation.comparison import METHODS
from irgen.files import digest, read_json, write_bytes, write_json
from irgen.params import Params, flatten, load
from irgen.workspace import Workspace

SERVING = ("index", "drift")  # of codes that can be served
SHOWN = ("precision/1", "precision/10", "precision/20", "hit/10", "map/R")


def run_seed(params_file: Path, seed: int, root: Path) -> dict:
    """All stages there are with one seed in ``root``: metrics, latency, seconds a stage, peak
    gigabytes."""
    params = dataclasses.replace(load(params_file), seed=seed)
    workspace = Workspace(data=root / "data", reports=root / "reports", cache=root.parent / "cache")
    seconds = {}
    for stage in stages(params):
        started = time.perf_counter()
        import_module(f"irgen.stages.{stage}").run(params, workspace, lambda metrics, step: None)
        seconds[stage] = time.perf_counter() - started
        print(f"seed {seed}: {stage} took {seconds[stage]:.1f} s", flush=True)
    return {
        "seed": seed,
        "params": digest(flatten(params)),
        "metrics": read_json(workspace.stage("evaluate") / "metrics.json"),
        "latency": read_json(workspace.reports / "latency.json")["methods"],
        "seconds": seconds,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def stages(params: Params) -> list[str]:
    """The stages that identifiers of this rule go through."""
    served = params.identifiers.rule == "semantic"
    return [stage for stage in STAGES if served or stage not in SERVING]


def _child(params_file: Path, seed: int, root: Path, out: Path) -> None:
    write_json(out, run_seed(params_file, seed, root))


def table(runs: list[dict]) -> str:
    """Markdown: a row a method, mean ± standard deviation over the seeds."""

    def spread(values: list[float], form: str) -> str:
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):{form}} ± {deviation:{form}}"

    heads = ["method", *(key.replace("precision/", "P@").replace("/", "@") for key in SHOWN)]
    lines = [[*heads, "ms search", "ms with encoding", "bytes/image"]]
    for method, name in METHODS.items():
        if method not in runs[0]["metrics"]:
            continue
        quality = [run["metrics"][method] for run in runs]
        row = [name, *(spread([q[key] for q in quality], ".3f") for key in SHOWN)]
        for key in ("search_ms", "total_ms"):
            row.append(f"{statistics.median(run['latency'][method][key] for run in runs):.2f}")
        lines.append([*row, f"{statistics.mean(q['bytes_per_image'] for q in quality):.0f}"])
    body = [f"| {' | '.join(line)} |" for line in lines]
    body.insert(1, f"| --- |{' ---: |' * (len(lines[0]) - 1)}")
    return "\n".join(body)


def about(runs: list[dict], commit: str) -> str:
    """What was run, where, and what it cost."""
    minutes = [sum(run["seconds"].values()) / 60 for run in runs]
    peak = max(run["peak_gigabytes"] for run in runs)
    return (
        f"{len(runs)} seeds, {len(os.sched_getaffinity(0))} cores ({platform.machine()}), commit "
        f"{commit}; all stages: {max(minutes):.1f} minutes and "
        f"{peak:.1f} GB at most."
    )


def main() -> int:
    """Runs the seeds one after the other; a seed that failed stops the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("params", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path(".cache/benchmarks"))
    options = parser.parse_args()
    name, runs = options.params.stem, []
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    commit = asked.stdout.strip() or "unknown"
    for seed in options.seeds:
        root = options.folder / f"{name}-{seed}"
        out = root / "result.json"
        context = multiprocessing.get_context("spawn")
        params = dataclasses.replace(load(options.params), seed=seed)
        if out.exists() and read_json(out).get("params") == digest(flatten(params)):
            runs.append(read_json(out))
            continue
        child = context.Process(target=_child, args=(options.params, seed, root, out))
        child.start()
        child.join()
        if child.exitcode:
            print(f"seed {seed} failed", file=sys.stderr)
            return 1
        runs.append(json.loads(out.read_text()))
    results = Path(__file__).parent / "results"
    write_json(results / f"{name}.json", {"about": about(runs, commit), "runs": runs})
    text = f"{table(runs)}\n\n{about(runs, commit)}\n"
    write_bytes(results / f"{name}.md", text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
