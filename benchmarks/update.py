"""Time an update and a full rebuild without training, stage by stage.

    python benchmarks/update.py --images 50000 --params experiments/clothing-224.yaml --threads 2

Makes a project in a folder of its own. Its models are trained for few steps on the photos of the
parameters' source, and search as params.yaml has it; then photos made from those (cropped,
mirrored, other colours; each another file) fill the database up to ``--images``. Three passes of
the flow ``update`` are timed, from the start of its process to its end, with a Prefect server on
loopback:

rebuild: nothing is cached but the trained models: every image is fetched, checked and encoded
update: 1 % more images
unchanged: as it is

What is made is kept, a timed pass too: called again, it goes on where it was. Delete the folder to
measure again. Writes ``benchmarks/results/update.json`` and ``.md``; with ``--encoder`` the name of
that encoder of timm's is in theirs, and it has no weights but those it is made with: what it takes
does not depend on them.
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
SHARE = 0.01  # of the images, added in the end
TRAINING = ("pairs", "tokenizer", "retriever")
SMALL = {  # enough for models that work; how good they are is not what is measured
    "augment": {"views": 1},
    "tokenizer": {"steps": 90},
    "retriever": {"steps": 50},
    "gate": {"margin": 1.0, "minimum": 0.0},
    "evaluate": {"beams": 20, "candidates": 100, "batch_size": 64},  # as params.yaml has them
}
PASSES = ("rebuild", "update", "unchanged")
ENDS = dict.fromkeys(("training", *PASSES), "Released") | {"unchanged": "Unchanged"}
UPDATE = "import sys; from flows.update import update; print(update('.', return_state=True).name)"
# Of whoever starts this: their server, and that Python should compile the code at each start.
OTHERS = ("MLFLOW", "PYTHONDONTWRITEBYTECODE")
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "DVC_STUDIO_OFFLINE": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}


def unpack(params: Path, folder: Path, most: int) -> list[Path]:
    """The files of the parameters' source below ``folder``; of the photos that are trained on, the
    first ``most`` in the order of their names. Returns those."""
    about = load(params).download
    listed = open_source(about, folder.parent / "fetched").load()
    for entry in listed.entries:
        path = folder / entry.key
        if entry.read is not None and not path.exists():
            content = entry.read()
            assert isinstance(content, bytes), "a local source"
            write_bytes(path, content)
    photos = sorted((folder / "train").rglob("*.*"), key=lambda path: path.name)
    for path in photos[most:]:
        path.unlink()
    return photos[:most]


def vary(photo: bytes, seed: int) -> bytes:
    """A JPEG of the same size, cropped, perhaps mirrored, in other colours."""
    chance = np.random.default_rng(seed)
    with Image.open(io.BytesIO(photo)) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    share = chance.uniform(0.7, 0.95)
    left, top = chance.uniform(0, 1 - share, 2) * (width, height)
    box = (left, top, left + share * width, top + share * height)
    image = image.resize((width, height), Image.Resampling.BILINEAR, box)
    if chance.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(chance.uniform(0.8, 1.2))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def make_image(number: int, photos: list[Path], pool: Path) -> Path:
    """Make the photo of this number in its label's folder below ``pool``; return its path."""
    photo = photos[number % len(photos)]
    path = pool / photo.parent.name / f"{photo.stem}-{number:06d}.jpg"
    if not path.exists():
        write_bytes(path, vary(photo.read_bytes(), number))
    return path


def make_images(count: int, photos: list[Path], pool: Path, threads: int) -> list[Path]:
    """That many made photos, in order; those that are there are not made again."""
    make = partial(make_image, photos=photos, pool=pool)
    with ProcessPoolExecutor(threads) as workers:
        return list(workers.map(make, range(count), chunksize=100))


def add(images: list[Path], source: Path) -> None:
    """Puts made photos into the source (linked: times stay as they are)."""
    for path in images:
        target = source / "train" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(path, target)


def make_project(root: Path, params: Path, encoder: str) -> None:
    """A copy of the project that takes its images from its folder ``images``; ``encoder`` is
    another one than that of the parameters, if not empty."""
    if (root / ".dvc").exists():
        return
    ours = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "irgen", root / "irgen", ignore=ours, dirs_exist_ok=True)
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
    """A Prefect server on loopback, and the environment of whoever reports to it."""

    def __init__(self, folder: Path, threads: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}/api"
        database = f"sqlite+aiosqlite:///{folder.resolve()}/prefect.db"
        self.settings = {
            **{name: os.environ[name] for name in os.environ if not name.startswith(OTHERS)},
            **QUIET,
            "OMP_NUM_THREADS": str(threads),
            "PREFECT_HOME": str(folder.resolve()),
            "PREFECT_API_URL": self.uri,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        }

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the server's answer, to a POST if there is a body, else to a GET."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.uri}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def tasks(self) -> dict[str, float]:
        """Return the seconds of each task of the latest flow run, in the order of their start."""
        latest = self.ask("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
        wanted = {"flow_runs": {"id": {"any_": [latest[0]["id"]]}}}
        found = self.ask("/task_runs/filter", wanted)
        found = sorted((one for one in found if one["start_time"]), key=lambda x: x["start_time"])
        return {one["name"]: round(one["total_run_time"], 2) for one in found}


@contextmanager
def served(folder: Path, threads: int) -> Iterator[Server]:
    """A server that is there while the block runs."""
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
                server.ask("/health")
                break
            time.sleep(0.1)
        yield server
    finally:
        process.communicate()  # the lifeline is cut


def run_update(root: Path, server: Server) -> dict[str, Any]:
    """One flow run: how it ended, seconds on the clock and of the processors, and of its tasks."""
    load_before, used = os.getloadavg()[0], _used()
    started = time.perf_counter()
    with (root / "update.log").open("a") as log:
        done = subprocess.run(
            [sys.executable, "-c", UPDATE],
            cwd=root,
            env=server.settings,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"the update failed: see {root / 'update.log'}")
    return {
        "state": done.stdout.split()[-1],
        "seconds": round(seconds, 1),
        "processor_seconds": round(_used() - used, 1),
        "load": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "tasks": server.tasks(),
    }


def _used() -> float:
    """Return the CPU seconds of ended children and of theirs."""
    about = resource.getrusage(resource.RUSAGE_CHILDREN)
    return about.ru_utime + about.ru_stime


def throw_away(root: Path) -> None:
    """Drops all that a rebuild without training makes again, and DVC's memory of past runs. The
    copy of the source stays (it numbers the revisions), as far as it goes."""
    keep = {*TRAINING, "download"}
    for path in (root / "data").iterdir():
        if path.name not in keep:
            shutil.rmtree(path)
    for path in (".cache/encodings", ".cache/catalog", ".dvc/cache/runs"):
        shutil.rmtree(root / path, ignore_errors=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every pass that was not measured yet; returns all of them."""
    folder, count = options.folder, options.images
    root, notes = folder / "project", folder / "measured.json"
    asked = {
        "images": count,
        "photos": options.photos,
        "threads": options.threads,
        "params": options.params.name,
        "encoder": options.encoder,
        "commit": commit(),
    }
    found = read_json(notes) if notes.exists() else asked
    if others := {name: found[name] for name in asked if found[name] != asked[name]}:
        raise SystemExit(f"{folder} has figures of {others}, not {asked}: give another --folder")
    photos = unpack(options.params, folder / "photos", options.photos)
    new = round(SHARE * count)
    made = make_images(count - len(photos) + new, photos, folder / "pool", options.threads)
    make_project(root, options.params, options.encoder)
    if not (root / "images").exists():
        shutil.copytree(folder / "photos", root / "images")
    first, later = made[:-new], made[-new:]
    with served(folder / "prefect", options.threads) as server:
        for name in ("training", *PASSES):
            if name in found:
                continue
            if name == "rebuild":
                add(first, root / "images")
                throw_away(root)
            elif name == "update":
                add(later, root / "images")
            print(f"{name} …", flush=True)
            found[name] = run_update(root, server)
            if found[name]["state"] != ENDS[name]:
                raise SystemExit(f"{name} ended as {found[name]}: see {root / 'update.log'}")
            write_json(notes, found)
            print(f"{name}: {found[name]}", flush=True)
    return found


def encoder_of(root: Path, found: dict[str, Any]) -> dict[str, Any]:
    """What encoded the project's images, how exactly, and how many milliseconds an image took in
    the rebuild, from its file to its features."""
    machine = read_json(root / "reports" / "latency.json")["machine"]
    return {
        "encoder": yaml.safe_load((root / "params.yaml").read_text())["encoder"]["name"],
        "precision": "fp32" if machine["autocast"] == "None" else "bf16",
        "encoding_ms": round(1000 * found["rebuild"]["tasks"]["features"] / found["images"], 1),
    }


def commit() -> str:
    """Return the commit that is measured."""
    return git(ROOT, "rev-parse", "--short", "HEAD") or "unknown"


def page(found: dict[str, Any]) -> str:
    """Return the figures as Markdown: a row a step, a column a pass."""
    rebuild, update, unchanged = (found[name] for name in PASSES)
    steps = [*rebuild["tasks"], *(each for each in update["tasks"] if each not in rebuild["tasks"])]
    lines = [["seconds", *PASSES], ["---", *["---:"] * len(PASSES)]]
    for step in steps:
        taken = [one["tasks"].get(step) for one in (rebuild, update, unchanged)]
        lines.append([step, *("" if each is None else f"{each:.1f}" for each in taken)])
    for title, key in (("whole", "seconds"), ("of the processors", "processor_seconds")):
        lines.append([f"**{title}**", *(f"{found[name][key]:.1f}" for name in PASSES)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    loads = "; ".join(
        f"{name} {found[name]['load'][0]:g} to {found[name]['load'][1]:g}" for name in PASSES
    )
    ratio = update["seconds"] / rebuild["seconds"]
    work = update["processor_seconds"] / rebuild["processor_seconds"]
    return (
        f"# Updates\n\n{found['images']:,} images, then 1 % more; {found['encoder']}, "
        f"{found['precision']}, {found['encoding_ms']:g} ms an image. The update takes "
        f"**{100 * ratio:.1f} %** of the time of the full rebuild without training "
        f"({100 * work:.1f} % of the processors' time); with nothing changed it takes "
        f"**{unchanged['seconds']:.1f} s** and no stage runs.\n\n{table}\n\n"
        "The whole is the time of the flow run's process, from start to end; steps may overlap. "
        f"{len(os.sched_getaffinity(0))} cores ({name_processor(torch.device('cpu'))}), "
        f"{found['threads']} threads a process, commit {found['commit']}. "
        f"Load of the machine before and after: {loads}.\n"
    )


def main() -> int:
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=50_000, help="in the database")
    parser.add_argument("--photos", type=int, default=10**9, help="that are trained on, at most")
    parser.add_argument("--params", type=Path, default=ROOT / "experiments/clothing-224.yaml")
    parser.add_argument("--encoder", default="", help="another one than that of the parameters")
    parser.add_argument("--folder", type=Path, default=Path(".cache/update"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    found = measure(options)
    found |= encoder_of(options.folder / "project", found)
    name = f"update-{options.encoder}" if options.encoder else "update"
    write_json(options.results / f"{name}.json", found)
    text = page(found)
    write_bytes(options.results / f"{name}.md", text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
