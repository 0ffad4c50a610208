"""Time an update and a full rebuild without training, stage by stage.

    python benchmarks/update.py --images 50000 --params experiments/clothing-224.yaml --threads 2

Makes a project in a folder of its own. Its models are trained for few steps on the photos of the
parameters' source. Varied copies of these photos (cropped, mirrored, other colours; each another
file) fill the database up to ``--images``. Three passes of the flow ``update`` are timed, from the
start of its process to its end, with a Prefect server on loopback:

rebuild: only the trained models exist: each image is fetched, checked and encoded
update: with 1 % more images
unchanged: with the same images

The folder keeps the photos and the figures of finished passes; another call goes on from there.
Delete the folder to measure again. Writes ``benchmarks/results/update.json`` and ``.md``.
``--encoder`` takes another encoder of timm, with random weights, which do not change its speed; its
name is part of the names of the results.
"""

import argparse
import io
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, ImageEnhance

from irgen.catalog.sources.open import open_source
from irgen.evaluation.latency import name_processor
from irgen.files.atomic import write_bytes
from irgen.files.records import read_json, write_json
from irgen.files.workspace import git
from irgen.params import load

ROOT = Path(__file__).resolve().parents[1]
SHARE = 0.01  # of the images, which the pass ``update`` adds
TRAINING = ("pairs", "tokenizer", "retriever")
SMALL = {  # a short training: the quality of the models is not measured
    "augment": {"views": 1},
    "tokenizer": {"steps": 90},
    "retriever": {"steps": 50},
    "gate": {"margin": 1.0, "minimum": 0.0},
    "evaluate": {"beams": 20, "candidates": 100, "batch_size": 64},  # as params.yaml has them
}
PASSES = ("rebuild", "update", "unchanged")
ENDS = dict.fromkeys(("training", *PASSES), "Released") | {"unchanged": "Unchanged"}
UPDATE = "import sys; from flows.update import update; print(update('.', return_state=True).name)"
# Not passed on: the caller's MLflow server, and the setting by which Python compiles at each start.
NOT_INHERITED = ("MLFLOW", "PYTHONDONTWRITEBYTECODE")
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "DVC_STUDIO_OFFLINE": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}


def unpack(params: Path, folder: Path, limit: int) -> list[Path]:
    """Write the files of the parameters' source below ``folder``; of the photos to train on, only
    the first ``limit`` in the order of their names. Return these photos."""
    listing = open_source(load(params).download, folder.parent / "fetched").load()
    for entry in listing.entries:
        path = folder / entry.key
        if entry.read is not None and not path.exists():
            content = entry.read()
            assert isinstance(content, bytes), "a local source"
            write_bytes(path, content)
    photos = sorted((folder / "train").rglob("*.*"), key=lambda path: path.name)
    for path in photos[limit:]:
        path.unlink()
    return photos[:limit]


def vary(photo: bytes, seed: int) -> bytes:
    """Return a JPEG of the same size, cropped, mirrored at random, in other colours."""
    generator = np.random.default_rng(seed)
    with Image.open(io.BytesIO(photo)) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    share = generator.uniform(0.7, 0.95)
    left, top = generator.uniform(0, 1 - share, 2) * (width, height)
    box = (left, top, left + share * width, top + share * height)
    image = image.resize((width, height), Image.Resampling.BILINEAR, box)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(generator.uniform(0.8, 1.2))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def make_image(number: int, photos: list[Path], pool: Path) -> Path:
    """Write the varied copy of this number to its label's folder below ``pool``, unless it exists;
    return its path."""
    photo = photos[number % len(photos)]
    path = pool / photo.parent.name / f"{photo.stem}-{number:06d}.jpg"
    if not path.exists():
        write_bytes(path, vary(photo.read_bytes(), number))
    return path


def make_images(count: int, photos: list[Path], pool: Path, threads: int) -> list[Path]:
    """Return ``count`` varied copies of the photos, in order."""
    make = partial(make_image, photos=photos, pool=pool)
    with ProcessPoolExecutor(threads) as workers:
        return list(workers.map(make, range(count), chunksize=100))


def add_to_source(images: list[Path], source: Path) -> None:
    """Link images into the source, which keeps their modification times."""
    for path in images:
        target = source / "train" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(path, target)


def make_project(root: Path, params: Path, encoder: str) -> None:
    """Copy the project, with the folder ``images`` as its source. An ``encoder`` that is not empty
    replaces that of the parameters."""
    if (root / ".dvc").exists():
        return
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "irgen", root / "irgen", ignore=ignored, dirs_exist_ok=True)
    for name in ("dvc.yaml", "training.yaml", ".gitignore", ".dvcignore"):
        shutil.copyfile(ROOT / name, root / name)
    settings = yaml.safe_load(params.read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        settings[section] |= values
    settings["catalog"].pop("training_revision", None)  # training.yaml sets it
    settings["download"] |= {"source": "images", "sha256": ""}
    if encoder:
        settings["encoder"] |= {"name": encoder, "weights": "none"}
    weights = Path(settings["encoder"]["weights"])
    if weights.is_file():
        settings["encoder"]["weights"] = str(weights.resolve())
    (root / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True)


class Server:
    """Hold the address of a Prefect server on loopback, and the environment of its clients."""

    def __init__(self, folder: Path, threads: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}/api"
        database = f"sqlite+aiosqlite:///{folder.resolve()}/prefect.db"
        self.settings = {
            **{name: os.environ[name] for name in os.environ if not name.startswith(NOT_INHERITED)},
            **QUIET,
            "OMP_NUM_THREADS": str(threads),
            "PREFECT_HOME": str(folder.resolve()),
            "PREFECT_API_URL": self.uri,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        }

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the server's answer to a POST if there is a body, else to a GET."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.uri}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def list_tasks(self) -> dict[str, float]:
        """Return the seconds of each task of the latest flow run, in the order of their start."""
        latest = self.request("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
        selection = {"flow_runs": {"id": {"any_": [latest[0]["id"]]}}}
        tasks = [
            task for task in self.request("/task_runs/filter", selection) if task["start_time"]
        ]
        tasks.sort(key=lambda task: task["start_time"])
        return {task["name"]: round(task["total_run_time"], 2) for task in tasks}


@contextmanager
def start_server(folder: Path, threads: int) -> Iterator[Server]:
    """Start a Prefect server, yield it, and stop it after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(folder, threads)
    command = [sys.executable, "-I", "-S", str(ROOT / "flows" / "process.py")]
    command += [sys.executable, "-m", "prefect", "server", "start", "--port", str(server.port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1"],
            env=server.settings,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for _ in range(1200):
            with suppress(OSError):
                server.request("/health")
                break
            time.sleep(0.1)
        yield server
    finally:
        process.communicate()  # closes its input, which ends it


def run_update(root: Path, server: Server) -> dict[str, Any]:
    """Run the flow once. Return its final state, its seconds on the clock and of the processors,
    the load of the machine before and after, and the seconds of its tasks."""
    load_before, used_before = os.getloadavg()[0], _processor_seconds()
    started = time.perf_counter()
    with (root / "update.log").open("a") as log:
        finished = subprocess.run(
            [sys.executable, "-c", UPDATE],
            cwd=root,
            env=server.settings,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    seconds = time.perf_counter() - started
    if finished.returncode:
        raise SystemExit(f"the update failed: see {root / 'update.log'}")
    return {
        "state": finished.stdout.split()[-1],
        "seconds": round(seconds, 1),
        "processor_seconds": round(_processor_seconds() - used_before, 1),
        "load": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "tasks": server.list_tasks(),
    }


def _processor_seconds() -> float:
    """Return the processor time of ended child processes and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def delete_outputs(root: Path) -> None:
    """Delete all that a rebuild without training makes again, and DVC's cache of past runs. Keep
    the downloaded images, because their manifest numbers the revisions."""
    keep = {*TRAINING, "download"}
    for path in (root / "data").iterdir():
        if path.name not in keep:
            shutil.rmtree(path)
    for path in (".cache/encodings", ".cache/catalog", ".dvc/cache/runs"):
        shutil.rmtree(root / path, ignore_errors=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time each pass that is not measured yet; return the settings and the figures of all passes.
    Raise SystemExit if the folder has figures of other settings, or if a pass fails."""
    folder, count = options.folder, options.images
    root, record = folder / "project", folder / "measured.json"
    settings = {
        "images": count,
        "photos": options.photos,
        "threads": options.threads,
        "params": options.params.name,
        "encoder": options.encoder,
        "commit": commit(),
    }
    results = read_json(record) if record.exists() else settings
    if others := {n: results[n] for n in settings if results[n] != settings[n]}:
        raise SystemExit(f"{folder} has figures of {others}, not {settings}: give another --folder")
    photos = unpack(options.params, folder / "photos", options.photos)
    new = round(SHARE * count)
    images = make_images(count - len(photos) + new, photos, folder / "pool", options.threads)
    make_project(root, options.params, options.encoder)
    if not (root / "images").exists():
        shutil.copytree(folder / "photos", root / "images")
    with start_server(folder / "prefect", options.threads) as server:
        for name in ("training", *PASSES):
            if name in results:
                continue
            if name == "rebuild":
                add_to_source(images[:-new], root / "images")
                delete_outputs(root)
            elif name == "update":
                add_to_source(images[-new:], root / "images")
            print(f"{name} …", flush=True)
            results[name] = run_update(root, server)
            if results[name]["state"] != ENDS[name]:
                raise SystemExit(f"{name} ended as {results[name]}: see {root / 'update.log'}")
            write_json(record, results)
            print(f"{name}: {results[name]}", flush=True)
    return results


def describe_encoder(root: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Return the name and the precision of the project's encoder, and the milliseconds an image
    took in the rebuild, from its file to its features."""
    machine = read_json(root / "reports" / "latency.json")["machine"]
    return {
        "encoder": yaml.safe_load((root / "params.yaml").read_text())["encoder"]["name"],
        "precision": "fp32" if machine["autocast"] == "None" else "bf16",
        "encoding_ms": round(1000 * results["rebuild"]["tasks"]["features"] / results["images"], 1),
    }


def commit() -> str:
    """Return the measured commit."""
    return git(ROOT, "rev-parse", "--short", "HEAD") or "unknown"


def render(results: dict[str, Any]) -> str:
    """Return the figures as Markdown: a row for each step, a column for each pass."""
    rebuild, update, unchanged = (results[name] for name in PASSES)
    steps = list(dict.fromkeys([*rebuild["tasks"], *update["tasks"]]))
    lines = [["seconds", *PASSES], ["---", *["---:"] * len(PASSES)]]
    for step in steps:
        seconds = [results[name]["tasks"].get(step) for name in PASSES]
        lines.append([step, *("" if value is None else f"{value:.1f}" for value in seconds)])
    for title, key in (("total", "seconds"), ("processor time", "processor_seconds")):
        lines.append([f"**{title}**", *(f"{results[name][key]:.1f}" for name in PASSES)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    loads = "; ".join(
        f"{name} {results[name]['load'][0]:g} to {results[name]['load'][1]:g}" for name in PASSES
    )
    time_ratio = update["seconds"] / rebuild["seconds"]
    work_ratio = update["processor_seconds"] / rebuild["processor_seconds"]
    return (
        f"# Updates\n\n{results['images']:,} images, then 1 % more; {results['encoder']}, "
        f"{results['precision']}, {results['encoding_ms']:g} ms an image. The update takes "
        f"**{100 * time_ratio:.1f} %** of the time of the full rebuild without training "
        f"({100 * work_ratio:.1f} % of the processor time); with nothing changed it takes "
        f"**{unchanged['seconds']:.1f} s** and no stage runs.\n\n{table}\n\n"
        "The total is the time of the flow run's process, from start to end; steps may overlap. "
        f"{len(os.sched_getaffinity(0))} cores ({name_processor(torch.device('cpu'))}), "
        f"{results['threads']} threads a process, commit {results['commit']}. "
        f"Load of the machine before and after: {loads}.\n"
    )


def main() -> int:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=50_000, help="in the database")
    parser.add_argument("--photos", type=int, default=10**9, help="to train on, at most")
    parser.add_argument("--params", type=Path, default=ROOT / "experiments/clothing-224.yaml")
    parser.add_argument("--encoder", default="", help="instead of that of the parameters")
    parser.add_argument("--folder", type=Path, default=Path(".cache/update"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    results = measure(options)
    results |= describe_encoder(options.folder / "project", results)
    name = f"update-{options.encoder}" if options.encoder else "update"
    write_json(options.results / f"{name}.json", results)
    text = render(results)
    write_bytes(options.results / f"{name}.md", text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
