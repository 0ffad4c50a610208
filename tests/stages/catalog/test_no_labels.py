"""Images without labels are taken only where clusters stand for labels."""

import dataclasses
from pathlib import Path

import pytest

from irgen.catalog.table import NAMES
from irgen.errors import CatalogError
from irgen.files.records import read_json
from irgen.files.workspace import Workspace
from irgen.params import Params

from .conftest import Png, run, tables


def by_clusters(params: Params) -> Params:
    tokenizer = dataclasses.replace(params.tokenizer, labels="clusters")
    return dataclasses.replace(params, tokenizer=tokenizer)


def test_images_without_labels_are_refused_with_the_remedy_and_taken_with_it(
    tmp_path: Path, workspace: Workspace, params, png: Png, capsys
) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(20):
        (tmp_path / "photos" / f"{i:02d}.png").write_bytes(png(i))
    with pytest.raises(CatalogError, match=r"tokenizer.labels to clusters and pairs.rule to near"):
        run(params(tmp_path / "photos"), workspace)
    note = "lie in no class folders (train, test and the like are none), so none has a label"
    assert note in capsys.readouterr().out, "the stage download says it already"
    metrics = run(by_clusters(params(tmp_path / "photos")), workspace)
    assert note not in capsys.readouterr().out
    catalog = tables(workspace)
    assert [len(catalog[name]) for name in NAMES] == [12, 3, 20, 5]
    assert all(table["label"].null_count() == len(table) for table in catalog.values())
    assert metrics["labels"] == metrics["images/rejected"] == 0
    assert read_json(workspace.stage("catalog") / "protocol.json")["format"] == "images"


def test_a_list_may_leave_labels_empty_if_clusters_stand_for_them(
    tmp_path: Path, workspace: Workspace, params, png: Png
) -> None:
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    lines = [f"{i}.png," for i in range(12)]
    (tmp_path / "shop.csv").write_text("\n".join(["path,label", *lines]))
    with pytest.raises(CatalogError, match=r"gives it a label.*tokenizer.labels to clusters"):
        run(params(tmp_path / "shop.csv"), workspace)
    lines[0] = "0.png,cat"
    lines[1] = '1.png,"  "'
    (tmp_path / "shop.csv").write_text("\n".join(["path,label", *lines]))
    metrics = run(by_clusters(params(tmp_path / "shop.csv")), workspace)
    labels = tables(workspace)["database"]["label"]
    assert sorted(labels, key=str) == [None] * 11 + ["cat"]
    assert metrics["labels"] == 1
