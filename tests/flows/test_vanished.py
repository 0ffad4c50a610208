"""Sources that vanish, wholly or in part, under a real worker: no release, nothing lost, and when
the source is back the next update goes on without a retrain. Every source holds the same digits."""

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml

from irgen.catalog import manifest
from irgen.catalog.sources.arrays import list_digits
from irgen.files.digests import checksums, file_digest

from ..bucket_server import BucketServer
from .conftest import PrefectServer, until
from .test_scenario import OVER, Living, copy_project, deploy, run_worker

pytestmark = [pytest.mark.slow, pytest.mark.scenario]

LABELS, PER_LABEL = "01234567", 20


class Vanishing(Living):
    """A project whose source is a folder, a list, an archive or a bucket of the same images."""

    @property
    def photos(self) -> Path:
        return self.root.parent / "photos"

    @property
    def away(self) -> Path:
        return self.root.parent / "away"

    def take(self, source: str) -> None:
        """Make this the project's source."""
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params["download"]["source"] = source
        path.write_text(yaml.safe_dump(params))

    def update(self) -> dict[str, Any]:
        """Run the deployment and return the state in which the run ended."""
        path = f"/deployments/{self.deployments['update']}/create_flow_run"
        run = self.server.ask(path, {})["id"]

        def over() -> dict[str, Any] | None:
            state = self.server.ask(f"/flow_runs/{run}")["state"]
            return state if state["type"] in OVER else None

        return until(over, "the update did not end", self.log.read_text)

    def facts(self) -> dict[str, Any]:
        """Return the state that must not change while the source is unreachable."""
        folder = self.root / "data" / "download"
        images = manifest.images(manifest.read(folder))
        return {
            "images": images.select("key", "sha256", "revision").rows(),
            "accepted": manifest.read_accepted(folder),
            "champion": (self.root / "releases" / "champion").readlink().name,
            "releases": sorted(path.name for path in (self.root / "releases").glob("0*")),
            "models": checksums(self.root / "data" / "retriever"),
            "training": (self.root / "training.yaml").read_text(),
        }

    def hold(self, *words: str) -> None:
        """An update must stop, say these words, and change nothing."""
        before, stored = self.facts(), file_digest(self.root / "data/download/manifest.parquet")
        state = self.update()
        assert (state["type"], state["name"]) == ("FAILED", "Held"), state["message"]
        for word in (*words, "nothing is removed"):
            assert word in state["message"]
        assert self.facts() == before
        assert file_digest(self.root / "data/download/manifest.parquet") == stored

    def go_on(self, *names: str) -> None:
        """An update must end in one of these states and change nothing."""
        before = self.facts()
        state = self.update()
        assert state["name"] in names, state["message"]
        assert self.facts() == before


@pytest.fixture(scope="module")
def vanishing(
    tmp_path_factory: pytest.TempPathFactory,
    bucket_server: BucketServer,
    prefect_server: PrefectServer,
    empty_store: Path,
) -> Iterator[Vanishing]:
    """Build and release a project by its deployment on a folder of digits."""
    folder = tmp_path_factory.mktemp("vanishing")
    bucket_server.reset()
    bucket_server.fill("store", {})
    store = SimpleNamespace(uri=f"sqlite:///{folder}/mlflow.db")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    made = Vanishing(folder / "project", bucket_server, prefect_server, store)  # type: ignore[arg-type]
    write_sources(made)
    copy_project(made)
    made.do("dvc", "remote", "remove", "-q", "store")
    params = yaml.safe_load((made.root / "params.yaml").read_text())
    params["release"] |= {"remote": "", "model": ""}
    params["download"] |= {"retries": 1}
    (made.root / "params.yaml").write_text(yaml.safe_dump(params))
    made.take(str(made.photos))
    deploy(made)
    with run_worker(made):
        state = made.update()
        assert state["name"] == "Released", state["message"]
        yield made


def write_sources(made: Vanishing) -> None:
    contents: dict[str, bytes] = {}
    for entry in list_digits().entries:
        label = entry.key[0]
        if label in LABELS and sum(key[0] == label for key in contents) < PER_LABEL:
            contents[entry.key] = entry.read()
    for key, content in contents.items():
        (made.photos / key).parent.mkdir(parents=True, exist_ok=True)
        (made.photos / key).write_bytes(content)
    made.buckets.fill("shop", {f"photos/{key}": content for key, content in contents.items()})
    write_list(made, sorted(contents))
    write_archive(made, contents)


def write_list(made: Vanishing, keys: list[str]) -> None:
    table = pl.DataFrame({"path": keys, "label": [key[0] for key in keys]})
    table.write_csv(made.photos.parent / "photos" / "list.csv")


def write_archive(made: Vanishing, contents: dict[str, bytes]) -> None:
    with zipfile.ZipFile(made.photos.parent / "photos.zip", "w") as archive:
        for key, content in contents.items():
            archive.writestr(key, content)


def test_a_folder_that_is_missing_empty_unmounted_or_in_part_away(vanishing: Vanishing) -> None:
    photos, away = vanishing.photos, vanishing.away
    photos.rename(away)
    vanishing.hold("cannot be read", "bring the source back")
    photos.mkdir()
    vanishing.hold("holds no image", "bring the source back")
    (photos / "lost+found").mkdir()  # what an empty file system has
    (photos / ".mounted").touch()
    vanishing.hold("holds no image")
    shutil.rmtree(photos)
    shutil.copytree(away, photos, ignore=shutil.ignore_patterns("[0-3]"))
    vanishing.hold("80 of 160 images (0 20, 1 20", "irgen release --accept-removals")
    for label in "012":
        shutil.copytree(away / label, photos / label)
    vanishing.hold("20 of 160 images (3 20), all images of 3 among them")
    shutil.rmtree(photos)
    away.rename(photos)
    vanishing.go_on("Unchanged")


def test_a_list_that_was_cut_off(vanishing: Vanishing) -> None:
    keys = [row[0] for row in vanishing.facts()["images"]]
    vanishing.take(str(vanishing.photos / "list.csv"))
    vanishing.go_on("Released", "Unchanged")
    write_list(vanishing, keys[:7])
    vanishing.hold("153 of 160 images", "irgen release --accept-removals")
    write_list(vanishing, keys)
    vanishing.go_on("Unchanged")


def test_an_archive_that_was_replaced_by_a_tiny_one(vanishing: Vanishing) -> None:
    path = vanishing.photos.parent / "photos.zip"
    whole = path.read_bytes()
    vanishing.take(str(path))
    vanishing.go_on("Released", "Unchanged")
    keys = [row[0] for row in vanishing.facts()["images"]][:3]
    write_archive(vanishing, {key: (vanishing.photos / key).read_bytes() for key in keys})
    vanishing.hold("157 of 160 images")
    path.write_bytes(whole)
    vanishing.go_on("Released", "Unchanged")


def test_a_bucket_that_is_slow_denied_empty_or_gone(vanishing: Vanishing) -> None:
    server = vanishing.buckets
    vanishing.take("s3://shop/photos")
    vanishing.go_on("Released", "Unchanged")
    keys = [f"photos/{row[0]}" for row in vanishing.facts()["images"]]
    contents = {key: server.content("shop", key) for key in keys}
    server.fault = lambda environ, answer: answer("503 Slow Down")
    vanishing.hold("s3://shop/photos", "bring the source back")
    server.fault = lambda environ, answer: answer("403 Forbidden")
    vanishing.hold("s3://shop/photos", "bring the source back")
    server.fault = None
    server.drop("shop", keys)
    vanishing.hold("s3://shop/photos", "holds no image")
    server.reset()
    vanishing.hold("s3://shop/photos")
    server.fill("shop", contents)
    vanishing.go_on("Released", "Unchanged")


def test_removals_that_a_person_accepts_are_released_without_a_retrain(
    vanishing: Vanishing,
) -> None:
    before = vanishing.facts()
    gone = [row[0] for row in before["images"] if row[0][0] == "3"]
    vanishing.buckets.drop("shop", [f"photos/{key}" for key in gone])
    vanishing.hold("20 of 160 images (3 20)")
    vanishing.do("irgen", "release", "--accept-removals")
    state = vanishing.update()
    assert state["name"] == "Released" and "20 gone; 140 images" in state["message"]
    after = vanishing.facts()
    assert after["champion"] != before["champion"]
    assert (after["models"], after["training"]) == (before["models"], before["training"])
    kept = [row for row in before["images"] if row[0] not in gone]
    assert after["images"] == kept  # no image has a new revision
