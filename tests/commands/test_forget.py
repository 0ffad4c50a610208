"""``irgen forget``: afterwards no file of the project holds the bytes, the embedding, the hash or
the name of the image."""

import hashlib
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from irgen.catalog.shards import Images
from irgen.catalog.sources.listing import Source
from irgen.catalog.sources.open import open_source
from irgen.catalog.sync import sync
from irgen.encoding.cache import ArrayStore
from irgen.files.sealed import write_parquet
from irgen.index.index import Index
from irgen.params import Download, load
from irgen.releases import promote
from irgen.tracking import mlflow_store
from irgen.tracking.locations import RELEASES, STAGES, experiment_name

NAME = "dogs/03.png"  # of image 3


def open_folder(folder: Path) -> Source:
    return open_source(Download(source=str(folder)))


def write_source(folder: Path, png: Callable, numbers: range) -> None:
    for number in numbers:
        path = folder / f"{'dogs' if number % 4 else 'cats'}/{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))


@pytest.fixture
def project_without_image(
    project: Path, root: Path, png: Callable, make_other_index: Callable, empty_store: Path
) -> Path:
    """Delete image 3 from the source of a released project. The project serves no such image any
    more, but many of its files still contain it."""
    settings = (root / "params.yaml").read_text()  # without a model registry, which takes seconds
    settings = settings.replace("release: {", 'release: {model: "", ')
    (project / "params.yaml").write_text(settings)
    params = load(project / "params.yaml")
    write_source(project / "source", png, range(8))
    sync(open_folder(project / "source"), project / "data" / "download")
    promote.release_index(project, params, force=True)
    (project / "source" / NAME).unlink()
    sync(open_folder(project / "source"), project / "data" / "download", trained=2)
    shutil.rmtree(project / "data" / "index")
    make_other_index(project / "data" / "index", [n for n in range(40) if n != 3])
    promote.release_index(project, params, force=True)
    write_caches(project, png)
    log_files(project, empty_store)
    return project


def write_caches(project: Path, png: Callable) -> None:
    cache, hashes = project / ".cache", [hashlib.sha256(png(n)).hexdigest() for n in (2, 3)]
    ArrayStore(cache / "encodings" / "x").add(hashes, np.ones((2, 8), np.float32))
    ArrayStore(cache / "encodings" / "x").add([hashes[0][::-1]], np.ones((1, 8), np.float32))
    (cache / "catalog").mkdir(parents=True)
    write_parquet(cache / "catalog" / "checked.parquet", pl.DataFrame({"sha256": hashes}))
    logs = ("views/x/tokens.npy", "answers/x.parquet", "tracking/b/stage.jsonl")
    for file in (*logs, "serve/thumbnails/ab/x", "serve/uploads/cd/x"):
        (cache / file).parent.mkdir(parents=True)
        (cache / file).write_text(f'{{"error": "{NAME} is odd"}}')
    (project / "reports").mkdir()
    (project / "reports" / "index.html").write_text(f"<span>{NAME}</span>")
    (project / "reports" / "other.html").write_text("<span>cats/dogs/03.png</span>")


def log_files(project: Path, empty_store: Path) -> None:
    """Log to MLflow the files that earlier versions of irgen copied, and those of today."""
    (project / "mlruns").mkdir(exist_ok=True)
    shutil.copyfile(empty_store, project / "mlruns" / "mlflow.db")
    client, params = mlflow_store.connect(project), load(project / "params.yaml")
    for part, files in (("", ["reports"]), (STAGES, ["data/download/images"]), (RELEASES, [])):
        experiment = mlflow_store.find_experiment(client, project, experiment_name(params, part))
        run = client.create_run(experiment)
        for file in files:
            client.log_artifacts(run.info.run_id, str(project / file))
    models = Path(client.get_experiment(experiment).artifact_location.removeprefix("file://"))
    for path in sorted((project / "releases").glob("0*")):
        shutil.copytree(path, models / "models" / path.name / "artifacts")


def find_traces(project: Path, needles: dict[str, bytes]) -> list[tuple[str, str]]:
    """Name the files that hold a needle; tables are unpacked. The source is the user's."""
    hits = []
    for path in sorted(path for path in project.rglob("*") if path.is_file()):
        name = path.relative_to(project).as_posix()
        if not name.startswith(("source/", "photos/")):
            content = path.read_bytes()
            if path.suffix == ".parquet" and content[:4] == b"PAR1":
                content = str(pl.read_parquet(path).rows()).encode()
            content = content.replace(b"cats/dogs/03.png", b"")
            hits += [(name, what) for what, needle in needles.items() if needle in content]
    return hits


def needles_of(project: Path, content: bytes) -> dict[str, bytes]:
    sha256 = hashlib.sha256(content).hexdigest()
    with Index.open(sorted((project / "releases").glob("0001-*"))[0]) as index:
        row = index.view.find([NAME])
        embedding = index.view.base.segment.embeddings.numpy()[row[0]].tobytes()
    return {
        "bytes": content[40:],
        "name": NAME.encode(),
        "hash": sha256.encode(),
        "key": bytes.fromhex(sha256),
        "embedding": embedding,
    }


def test_afterwards_no_byte_of_the_project_is_of_the_image(
    project_without_image: Path, run_ok, png
) -> None:
    needles = needles_of(project_without_image, png(3))
    run_ok("remove", "dogs/01.png")  # makes index/, of the served release
    run_ok("add", "photos/003.png", "--base", "photos")
    run_ok("remove", "003.png")
    kinds = {what for _, what in find_traces(project_without_image, needles)}
    assert kinds == needles.keys(), "there is something to delete"

    printed = run_ok("forget", NAME, "003.png")

    assert printed.startswith("2 images forgotten, with 1 release and ")
    assert "dvc gc --workspace --force" in printed
    assert find_traces(project_without_image, needles | {"added": b"003.png"}) == []
    assert (project_without_image / "reports" / "other.html").exists(), (
        "another image is named there"
    )
    with Index.open(project_without_image / "index") as index:
        assert len(index) == 38
        index.verify()
    assert len(list((project_without_image / "releases").glob("0*"))) == 1
    stored = Images(project_without_image / "data" / "download")
    for number in (0, 1, 2, 4, 5, 6, 7):
        assert stored.read(hashlib.sha256(png(number)).hexdigest()) == png(number)
    for shard in (project_without_image / "data" / "download" / "images").iterdir():
        with tarfile.open(shard) as archive:
            assert "deleted" in archive.getnames() and len(archive.getnames()) == 8
    assert (
        sync(
            open_folder(project_without_image / "source"),
            project_without_image / "data" / "download",
        ).revision
        == 2
    )


def test_what_the_source_still_has_stays(project_without_image: Path, refused) -> None:
    assert "the source still has cats/04.png: delete it there" in refused("forget", "cats/04.png")
    assert "nothing.png is unknown" in refused("forget", NAME, "nothing.png")


def test_what_is_served_or_trained_on_stays(
    project_without_image: Path, refused, make_other_index, png
) -> None:
    (project_without_image / "data" / "catalog").mkdir()
    table = pl.DataFrame({"id": [NAME], "sha256": [hashlib.sha256(png(3)).hexdigest()]})
    table.write_parquet(project_without_image / "data" / "catalog" / "train.parquet")
    assert f"train.parquet still lists {NAME}: retrain first" in refused("forget", NAME)
    table.clear().write_parquet(project_without_image / "data" / "catalog" / "train.parquet")
    champion = project_without_image / "releases" / "champion"
    first = next((project_without_image / "releases").glob("0001-*"))
    champion.unlink()
    champion.symlink_to(first.name)
    assert "release 1, which is served, holds such an image" in refused("forget", NAME)


def test_the_former_content_of_an_image_goes_and_the_new_one_stays(
    project_without_image: Path, run_ok, png
) -> None:
    folder, path = (
        project_without_image / "data" / "download",
        project_without_image / "source" / "dogs" / "new.png",
    )
    for number in (50, 51):
        path.write_bytes(png(number))
        sync(open_folder(project_without_image / "source"), folder, trained=9)
    run_ok("forget", "dogs/new.png")
    assert find_traces(folder, {"old": png(50)[40:]}) == []
    assert Images(folder).read(hashlib.sha256(png(51)).hexdigest()) == png(51)


KILLED = """
import os, signal
from irgen.releases import forget
forget.delete_releases = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from irgen.commands import cli
cli.main(["forget", "{name}", "003.png"])
"""


def test_a_forget_that_was_killed_is_finished_by_the_next(
    project_without_image: Path, run, run_ok, png
) -> None:
    needles = needles_of(project_without_image, png(3)) | {"added": b"003.png"}
    run_ok("add", "photos/003.png", "--base", "photos")
    script = KILLED.format(name=NAME)
    killed = subprocess.run([sys.executable, "-c", script], cwd=project_without_image, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert find_traces(project_without_image, needles), "something is left"
    assert "003.png is unknown: " in run("forget", NAME, "003.png").err, "index/ alone held it"
    run_ok("forget", NAME)
    assert find_traces(project_without_image, needles) == []


def test_while_mlflow_does_not_answer_nothing_is_deleted(
    project_without_image: Path, run, monkeypatch
) -> None:
    before = set(project_without_image.rglob("*"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    outcome = run("forget", NAME)
    assert (outcome.status, outcome.out) == (2, "")
    assert "failed: Connection refused; not everything is deleted yet: mend that" in outcome.err
    assert before <= set(project_without_image.rglob("*"))
