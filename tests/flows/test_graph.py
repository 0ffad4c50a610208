"""The flows' graph is DVC's, read as DVC reads it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows import graph
from irgen.errors import ParamsError

from .conftest import Toy


def declared(root: Path) -> dict[str, set[str]]:
    """Return the stages that each stage depends on by dvc.yaml: those with an output that is one of
    its dependencies or contains it."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]

    def paths(entry: dict, *kinds: str) -> list[str]:
        items = [item for kind in kinds for item in entry.get(kind, [])]
        return [item if isinstance(item, str) else next(iter(item)) for item in items]

    made = {
        path: name for name, entry in stages.items() for path in paths(entry, "outs", "metrics")
    }
    return {
        name: {
            owner
            for dep in paths(entry, "deps")
            for path, owner in made.items()
            if f"{dep}/".startswith(f"{path}/") or f"{path}/".startswith(f"{dep}/")
        }
        for name, entry in stages.items()
    }


def test_the_graph_is_that_of_the_project_s_pipeline(root: Path) -> None:
    nodes = graph.read(root)
    assert {name: set(node.upstream) for name, node in nodes.items()} == declared(root)


def test_a_stage_comes_after_all_it_needs(root: Path) -> None:
    nodes = graph.read(root)
    order = list(nodes)
    for name, node in nodes.items():
        assert all(order.index(each) < order.index(name) for each in node.upstream)


def test_what_looks_outside_is_known(root: Path) -> None:
    assert [name for name, node in graph.read(root).items() if node.always] == ["download"]


def test_a_stage_s_meta_says_how_it_is_conducted(toy: Toy) -> None:
    nodes = graph.read(toy.root)
    assert nodes["first"].options == graph.TaskOptions(timeout_seconds=60.0, tags=("quick",))
    assert nodes["right"].options.retries == 1
    assert nodes["left"].options == graph.TaskOptions()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"retry": 1}, "did you mean 'retries'"),
        ({"retries": "1"}, "expected a whole number"),
        (3, "section"),
    ],
)
def test_a_misspelt_option_is_told_with_its_place(said: object, message: str) -> None:
    with pytest.raises(ParamsError, match=f"dvc.yaml: trie: meta: prefect.*{message}"):
        graph.read_options("trie", {"prefect": said})


def test_every_stage_of_the_project_says_how_it_is_conducted(root: Path) -> None:
    for name, entry in yaml.safe_load((root / "dvc.yaml").read_text())["stages"].items():
        assert set(entry["meta"]["prefect"]) == {"retries", "timeout_seconds"}, name


def test_the_stages_of_other_files_are_other_pipelines(toy: Toy) -> None:
    before = graph.read(toy.root)
    (toy.root / "other").mkdir()
    text = "stages:\n  far:\n    cmd: 'true'\n    deps: [../params.yaml]\n    outs: [out]\n"
    (toy.root / "other" / "dvc.yaml").write_text(text)
    assert graph.read(toy.root) == before


@pytest.mark.parametrize("below", ["", "/deep/words"])
def test_what_was_added_is_a_task_of_its_own_if_a_stage_reads_it(toy: Toy, below: str) -> None:
    text = (toy.root / "dvc.yaml").read_text()
    (toy.root / "dvc.yaml").write_text(text.replace("words.txt", f"added{below}"))
    for name in (f"added{below}", "far"):
        (toy.root / name).parent.mkdir(parents=True, exist_ok=True)
        (toy.root / name).write_text(name)
    for name in ("added", "far"):
        command = [sys.executable, "-m", "dvc", "add", "-q", name]
        subprocess.run(command, cwd=toy.root, check=True, timeout=60)
    nodes = graph.read(toy.root)
    assert nodes["first"].upstream == ("added.dvc",) and "far.dvc" not in nodes
