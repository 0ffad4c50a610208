"""The champion is moved by hand, back and on again, and stays where it was put."""

import shutil

import pytest

from irgen.index.index import Index
from irgen.tracking import mlflow_store


def released(project, release, *numbers: int) -> None:
    for number in numbers:
        project.builds(number)
        release()


def test_one_command_goes_back_and_another_comes_back(project, release, irgen):
    released(project, release, 1, 2)
    back = irgen("rollback", "--json")
    assert back.status == 0
    assert (back.said["version"], back.said["champion"], back.said["new"]) == (1, 1, True)
    with Index.open(project.store / "champion") as index:
        assert index.info()["config"]["number"] == 1
    again = irgen("rollback", "2")
    assert again.out == "Release 2 is served now.\n"
    assert project.champion().startswith("0002")
    assert irgen("rollback", "--json").said["champion"] == 1  # what it took the place of is known


def test_what_was_rolled_back_from_is_not_released_again_by_itself(project, release, irgen):
    released(project, release, 1, 2)
    irgen("rollback")
    kept = release()
    assert (kept["status"], kept["state"], kept["champion"]) == (3, "withdrawn", 1)
    assert "irgen rollback 2 brings it back" in kept["verdict"]["why"]
    released(project, release, 3)
    assert project.champion().startswith("0003")  # another index is judged as any other
    project.builds(2)
    assert release()["status"] == 3
    assert release("--force")["champion"] == 2


def test_the_registry_follows(project, release, irgen):
    project.set("release", model="irgen")
    released(project, release, 1, 2)
    client = mlflow_store.connect(project.root)
    irgen("rollback")
    assert str(client.get_model_version_by_alias("irgen", "champion").version) == "1"
    irgen("rollback", 2)
    assert str(client.get_model_version_by_alias("irgen", "champion").version) == "2"
    assert len(client.search_model_versions("name = 'irgen'")) == 2


def test_a_candidate_can_be_served_by_hand(project, release, irgen):
    release()
    project.builds(2, bad=True)
    assert release()["status"] == 3
    assert irgen("rollback", 2, "--json").said["previous"] == 1
    assert release()["status"] == 0
    assert irgen("rollback", "--json").said["champion"] == 1


def test_a_damaged_release_is_not_gone_back_to(project, release, irgen):
    released(project, release, 1, 2)
    (folder,) = project.store.glob("0001-*")
    path = folder / "base" / "1" / "embeddings.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = irgen("rollback")
    assert done.status == 2 and "release 1 is damaged: " in done.err
    assert "embeddings.npy is not as it was released; choose another" in done.err
    assert project.champion().startswith("0002")


def test_there_must_be_something_to_go_back_to(project, release, irgen):
    done = irgen("rollback")
    assert done.status == 2 and "irgen release makes the first" in done.err
    release()
    done = irgen("rollback")
    assert done.status == 2 and "replaced none; available: 1" in done.err
    done = irgen("rollback", 9)
    assert done.status == 2 and "there is no release 9" in done.err and "available: 1" in done.err
    assert project.champion().startswith("0001")


def test_another_release_takes_the_place_of_a_champion_that_is_gone(project, release, irgen):
    released(project, release, 1, 2, 3)
    shutil.rmtree(project.store / project.champion())
    lost = irgen("rollback")
    assert lost.status == 2 and "irgen rollback VERSION; available: 2, 1" in lost.err
    done = irgen("rollback", 9)
    assert done.status == 2 and "there is no release 9" in done.err
    assert irgen("rollback", 2).out == "Release 2 is served now.\n"
    assert project.champion().startswith("0002")
    assert irgen("rollback", "--json").said["champion"] == 1


def test_pruning_spares_the_champion_and_what_it_took_the_place_of(project, release, irgen):
    project.set("release", keep=1)
    released(project, release, 1, 2, 3)
    irgen("rollback", 2)
    for number in (4, 5):
        project.builds(number, bad=True)
        assert release()["status"] == 3
    assert [name[:4] for name in project.folders()] == ["0001", "0002", "0005", "cham"]
    assert irgen("rollback", "--json").said["champion"] == 1


def test_the_list_marks_what_is_served(project, release, irgen):
    assert "There is no release" in irgen("releases").out
    released(project, release, 1, 2)
    irgen("rollback")
    lines = irgen("releases").out.splitlines()
    assert [line.split()[:3] for line in lines[2:]] == [
        ["2", "withdrawn", "7"],
        ["→", "1", "released"],
    ]
    said = irgen("releases", "--json").said
    assert [(one["version"], one["champion"]) for one in said] == [(2, False), (1, True)]


GARBAGE = "tokenizer: {levles: [\n"
MISSPELT = "download: {source: digits, retires: x}\ntokenizer: {levles: many}\n"


@pytest.mark.parametrize("text", [GARBAGE, MISSPELT, "", None])
def test_wrong_settings_keep_nobody_from_another_release(project, release, irgen, text):
    released(project, release, 1, 2)
    for name in ("params.yaml", "training.yaml"):
        if text is None:
            (project.root / name).unlink(missing_ok=True)
        else:
            (project.root / name).write_text(text)
    (project.root / "query.png").write_bytes(project.query)
    assert irgen("releases").status == irgen("info").status == 0
    assert irgen("search", project.root / "query.png").status == 0
    done = irgen("rollback")
    assert (done.status, done.out) == (0, "Release 1 is served now.\n")
    assert project.champion().startswith("0001")
    assert ("bucket and MLflow are not up to date" in done.err) == (text != MISSPELT)


def test_settings_that_a_rollback_does_not_need_may_be_wrong(project, release, irgen):
    project.set("release", model="irgen")
    released(project, release, 1, 2)
    project.set("download", retries="many")
    project.set("retriever", steps=-1)
    done = irgen("rollback")
    assert (done.status, done.err) == (0, "")
    client = mlflow_store.connect(project.root)
    assert str(client.get_model_version_by_alias("irgen", "champion").version) == "1"


def test_a_wrong_release_section_is_named_and_the_rollback_stands(project, release, irgen):
    released(project, release, 1, 2)
    project.set("release", keep="all")
    done = irgen("rollback")
    assert done.status == 0 and "params.yaml: release: keep: expected a whole number" in done.err
    assert project.champion().startswith("0001")
    done = irgen("releases", "pull")
    assert done.status == 2 and "params.yaml: release: keep" in done.err
