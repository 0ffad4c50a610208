"""Indexes that may not be changed or cannot be read: refused in one line, and left as they are."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest

from irgen.commands import project_index
from irgen.files.digests import digest
from irgen.index.index import Index

CHANGES = {
    "add": ("add", "photos/100.png"),
    "remove": ("remove", "dogs/03.png"),
    "compact": ("compact",),
}
READS = {"search": ("search", "photos/003.png"), "info": ("info", "--verify")}
ALL = CHANGES | READS


@pytest.fixture
def own_folder(project: Path, run_ok) -> Path:
    """Return the project's own index after a change that is not compacted."""
    run_ok("remove", "dogs/01.png")
    return project / "index"


@pytest.mark.parametrize("name", CHANGES)
def test_a_second_writer_is_refused_and_told_who_the_first_is(
    own_folder, refused, run_ok, name, monkeypatch
):
    monkeypatch.setattr(project_index, "WAIT_SECONDS", 0.1)
    with Index.open(own_folder, writable=True):
        line = refused(*CHANGES[name])
        assert f"index has a writer already (process {os.getpid()})" in line
        run_ok("search", "photos/003.png")  # readers go on
        run_ok("info")
    run_ok(*CHANGES[name])


def test_a_command_waits_for_a_writer_that_soon_ends_such_as_a_service(own_folder, run_ok):
    writer = Index.open(own_folder, writable=True)
    Timer(0.5, writer.close).start()
    assert "1 image added" in run_ok("add", "photos/100.png")


@pytest.mark.parametrize("name", ALL)
def test_an_index_of_a_newer_version_is_refused(own_folder, refused, name):
    path = own_folder / "index.json"
    values = json.loads(path.read_text()) | {"version": 99}
    values.pop("digest")
    path.write_text(json.dumps(values | {"digest": digest(values)}))
    assert "newer irgen (version 99" in refused(*ALL[name])


def damage(path: Path, offset: int) -> None:
    """Flip a bit. The file is made anew, since another index may share it by a link."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["index.json", "base/1/codes.npy", "changes.sqlite"])
@pytest.mark.parametrize("name", ALL)
def test_a_damaged_index_is_refused_by_the_files_name(own_folder, refused, name, file):
    damage(own_folder / file, 0)
    assert f"index/{file}" in refused(*ALL[name])


@pytest.mark.parametrize("name", ["search", "add"])
def test_damaged_models_are_refused_before_they_are_used(own_folder, refused, name):
    damage(own_folder / "models" / "retriever.safetensors", -1)
    assert "retriever.safetensors is damaged" in refused(*ALL[name])


@pytest.fixture
def read_only(own_folder: Path) -> Iterator[Path]:
    """Yield the project's own index on a read-only file system."""
    own_folder.chmod(0o555)
    if os.access(own_folder, os.W_OK):  # root may write anywhere, but for where nobody can
        own_folder.chmod(0o755)
        target = shlex.quote(str(own_folder))
        mounted = subprocess.run(
            f"mount --bind {target} {target} && mount -o remount,ro,bind {target}",
            shell=True,
            capture_output=True,
        )
        if mounted.returncode:
            pytest.skip("root may write anywhere, and mounting is not allowed here")
        yield own_folder
        subprocess.run(["umount", "--lazy", str(own_folder)], check=True)
    else:
        yield own_folder
        own_folder.chmod(0o755)


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_cannot_be_written_can_be_searched_but_not_changed(
    read_only, refused, run_ok, name
):
    assert "dogs/03.png" in run_ok("search", "photos/003.png")
    assert "every file is as it was written" in run_ok("info", "--verify")
    line = refused(*CHANGES[name])
    assert "index" in line and ("ead-only" in line or "ermission" in line)


def test_another_projects_pipelines_index_is_not_changed_either(project, refused, tmp_path):
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    (other / "dvc.yaml").touch()
    (project / "data" / "index").rename(other / "data" / "index")
    line = refused("add", "photos/100.png", "--index", other / "data" / "index")
    assert "made by the pipeline" in line


def test_an_empty_folder_in_the_way_of_the_copy_does_no_harm(project, run_ok, refused):
    (project / "index").mkdir()
    assert "dogs/03.png" in run_ok("search", "photos/003.png")
    assert run_ok("add", "photos/100.png") == "1 image added. index holds 41 now.\n"


def test_anything_else_in_its_way_is_named(project, refused):
    (project / "index").mkdir()
    (project / "index" / "notes.txt").write_text("mine")
    for command in ALL.values():
        assert "index is not an index: it has no index.json" in refused(*command)
