"""A release is made once, judged, and goes on where it was killed."""

import json
import shutil
import subprocess
import sys

import pytest

from irgen.catalog import manifest
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.releases import promote, store

from .. import small_disk


def test_the_first_release_is_served_and_the_same_index_again_is_nothing_new(project, release):
    first = release()
    assert first["status"] == 0 and first["new"] and first["settled"]
    assert (first["version"], first["champion"], first["state"]) == (1, 1, "released")
    assert first["revision"] == 7 and "first release" in first["verdict"]["why"]
    before = project.folders()
    again = release()
    assert again["status"] == 0 and not again["new"] and again["version"] == 1
    assert project.folders() == before == [first["name"], "champion"]
    with Index.open(project.store / "champion") as index:
        index.verify()
        assert len(index) == 32


def test_a_better_index_takes_the_place_of_the_champion_and_a_worse_one_does_not(
    project, release, irgen
):
    project.builds(1, bad=True)
    refused = release()
    assert refused["status"] == 3 and refused["champion"] is None and not refused["new"]
    assert "below gate.minimum" in refused["verdict"]["why"]
    assert not (project.store / "champion").exists()
    project.builds(2)
    assert release()["champion"] == 2
    project.builds(3, bad=True)
    worse = release()
    assert (worse["status"], worse["state"], worse["champion"]) == (3, "rejected", 2)
    assert "gate.margin allows" in worse["verdict"]["why"]
    assert worse["verdict"]["figures"]["difference"] < -0.1
    assert project.champion().startswith("0002")
    done = irgen("release")
    assert done.status == 3
    assert done.out.startswith("Release 3 is kept as a candidate, release 2 is served: precision/4")


def test_a_verdict_on_the_same_grounds_is_not_asked_for_twice(project, release, monkeypatch):
    release()
    project.builds(2, bad=True)
    first = release()["verdict"]
    monkeypatch.setattr(promote.gate, "compare", None)
    assert release()["verdict"] == first
    project.set("gate", margin=1.0)
    with pytest.raises(TypeError):  # now it is
        release()


def test_what_the_gate_kept_back_is_released_by_force(project, release):
    release()
    project.builds(2, bad=True)
    assert release()["status"] == 3
    forced = release("--force")
    assert forced["status"] == 0 and forced["champion"] == 2 and forced["previous"] == 1
    assert release()["champion"] == 2  # for good


def test_an_index_of_half_the_images_is_kept_back_unless_a_person_accepted_that(project, release):
    release()
    project.builds(2, per_label=4)
    project.writes_database(per_label=4)
    rejected = release()
    assert (rejected["status"], rejected["champion"]) == (3, 1)
    assert "holds 16 images and the served one 32" in rejected["verdict"]["why"]
    assert "irgen release --force" in rejected["verdict"]["why"]
    project.set("download", most_removed=0.5)
    assert release()["champion"] == 2
    project.builds(3, per_label=1)
    project.writes_database(per_label=1)
    project.set("gate", metric="hit/1")
    assert release()["champion"] == 2
    folder = Workspace.at(project.root).stage("download")
    manifest.write(folder, manifest.read(folder), revision=8, source="test", accepted=8)
    assert release()["champion"] == 3


def test_an_index_that_comes_back_is_the_release_it_was(project, release):
    release()
    project.builds(2)
    release()
    project.builds(1)
    back = release()
    assert (back["version"], back["new"], back["previous"]) == (1, True, 2)
    assert project.folders() == sorted([*project.folders()]) and len(project.folders()) == 3


@pytest.mark.slow
def test_two_releases_at_once_are_one(project, root):
    command = [sys.executable, "-m", "irgen", "release", "--json", "--root", str(project.root)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdout=pipe, text=True, cwd=root) for _ in range(2)]
    said = [json.loads(each.communicate(timeout=120)[0]) for each in both]
    assert [each.returncode for each in both] == [0, 0]
    assert [each["version"] for each in said] == [1, 1]
    assert sorted(each["new"] for each in said) == [False, True]
    assert len(project.folders()) == 2


def test_a_reader_goes_on_answering_while_the_champion_moves_and_its_release_is_pruned(
    project, release
):
    release()
    project.set("release", keep=1)
    first = project.champion()
    asked = [project.query]
    with Index.open(project.store / "champion") as reader:
        before = reader.search(asked, 4)
        for number in range(2, 6):
            project.builds(number)
            assert release()["champion"] == number
            assert (reader.search(asked, 4).ids == before.ids).all()
        assert first not in project.folders()
        assert reader.info()["config"]["number"] == 1
    with Index.open(project.store / "champion") as reader:
        assert reader.info()["config"]["number"] == 5


def test_an_index_that_is_changed_while_it_is_copied_is_not_released(project, irgen, monkeypatch):
    real = store.copy_files

    def meddling(index, folder, names):
        real(index, folder, names)
        (folder / "changes.sqlite").write_bytes(b"")

    monkeypatch.setattr(store, "copy_files", meddling)
    done = irgen("release")
    assert done.status == 2 and "changed while they were copied" in done.err
    assert project.folders() == []


def test_without_an_index_the_stage_to_run_is_named(project, irgen):
    shutil.rmtree(project.root / "data" / "index")
    done = irgen("release")
    assert done.status == 2 and "dvc repro index" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_release_waits_for_another_and_says_so_if_it_takes_long(project, irgen, monkeypatch):
    with store.lock(project.store):
        monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
        done = irgen("release")
    assert done.status == 2 and "another release has been running" in done.err


def test_a_full_disk_leaves_the_champion_and_no_half_release(project, release, root, tmp_path):
    release()
    disk, size = tmp_path / "disk", sum(path.stat().st_size for path in project.store.rglob("*"))
    with small_disk.mount(disk, f"{size * 3 // 2 // 1024}k"):
        shutil.move(project.store, disk / "releases")
        project.store.symlink_to(disk / "releases")
        before = project.folders()
        project.builds(2)
        command = [sys.executable, "-m", "irgen", "release", "--root", str(project.root)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
        assert done.returncode == 2 and "no space left on the disk" in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert project.folders() == before
        with Index.open(project.store / "champion") as index:
            index.verify()
        small_disk.resize(disk, f"{size * 4 // 1024}k")
        assert release()["champion"] == 2


def test_codes_that_cannot_be_served_are_not_released(project, irgen):
    project.set("identifiers", rule="random")
    done = irgen("release")
    assert (
        done.status == 2 and "'random'" in done.err and "identifiers.rule to semantic" in done.err
    )
    assert not project.store.exists()
