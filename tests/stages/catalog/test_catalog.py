"""The catalog stage: from downloaded images to checked tables with roles."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from irgen.catalog.leaks import KINDS
from irgen.catalog.table import NAMES, label_counts
from irgen.errors import ArtifactError, CatalogError
from irgen.files.records import read_json
from irgen.files.workspace import Workspace
from irgen.stages import catalog
from irgen.tracking import provenance

from .conftest import Png, no_log, rejected, run, tables


def test_images_are_checked_labelled_and_sorted_into_roles(
    shop: Path, workspace: Workspace, params, capsys
) -> None:
    metrics = run(params(shop), workspace)
    catalog = tables(workspace)
    assert label_counts(catalog["queries"]).rows() == [("cat", 5), ("dog", 2)]
    assert label_counts(catalog["validation"]).rows() == [("cat", 3), ("dog", 1)]
    assert label_counts(catalog["train"]).rows() == [("cat", 12), ("dog", 5), ("owl", 1)]
    assert len(catalog["database"]) == 29
    assert set(catalog["train"]["width"]) == {5} and set(catalog["train"]["height"]) == {6}
    assert rejected(workspace) == [
        ("cat/99.png", "not an image of a known format"),
        ("emu/", "a class folder without an image"),
    ]
    assert metrics == {
        "images/train": 18,
        "images/validation": 4,
        "images/database": 29,
        "images/queries": 7,
        "images/rejected": 1,
        "labels": 3,
        "labels_with_one_image": 1,
        "labels_without_image": 1,
        "queries_in_database": 0,
        **{f"duplicates/{name}": 0 for name in NAMES},
        **{f"leaks/{kind}": 0 for kind in KINDS},
    }
    output = capsys.readouterr().out
    assert "29 images of 3 labels: 18 train, 4 validation; 2 rejected" in output
    assert "29 images can be found; 7 of them measure quality and are not trained on" in output
    assert "1 label has one image only: it can be found, but not measured" in output
    assert "rejected cat/99.png: not an image" in output


def test_control_characters_in_names_do_not_reach_the_terminal(
    shop: Path, workspace: Workspace, params, capsys
) -> None:
    (shop / "cat" / "a\n\x1b[31m.png").write_bytes(b"no image")
    (shop / "cat" / "b\n\x1b[31m.png").symlink_to("gone.png")
    run(params(shop), workspace)
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert r"rejected cat/a\n\x1b[31m.png: not an image" in output
    assert r"  cat/b\n\x1b[31m.png: it cannot be read" in output


def test_the_roles_that_are_searched_are_chosen(
    shop: Path, workspace: Workspace, params, capsys
) -> None:
    run(params(shop, database=("train",)), workspace)
    assert set(tables(workspace)["database"]["role"]) == {"train"}
    assert "others measure quality and are not trained on" in capsys.readouterr().out
    metrics = run(params(shop), workspace)
    assert metrics["images/database"] == 29
    assert metrics["queries_in_database"] == 0  # a query is no copy of itself


def test_copies_are_kept_and_counted(
    tmp_path: Path, workspace: Workspace, params, png: Png
) -> None:
    shop = tmp_path / "shop"
    for path, number in {"train/a/1": 1, "train/a/2": 1, "train/b/3": 3, "test/a/4": 1}.items():
        (shop / path).parent.mkdir(parents=True, exist_ok=True)
        (shop / f"{path}.png").write_bytes(png(number))
    metrics = run(params(shop, validation_fraction=0.0), workspace)
    assert metrics["images/train"] == 3
    assert (metrics["duplicates/train"], metrics["duplicates/database"]) == (1, 2)
    assert metrics["leaks/same_file"] == 1
    assert metrics["queries_in_database"] == 1
    assert metrics["images/validation"] == 0


def test_what_cannot_serve_a_run_is_one_clear_error(
    tmp_path: Path, workspace: Workspace, params, shop: Path
) -> None:
    with pytest.raises(ArtifactError, match="dvc repro download"):
        catalog.run(params(shop), workspace, no_log)
    with pytest.raises(CatalogError, match=r"no training image.*revision 0"):
        run(params(shop, training_revision=0), workspace)
    with pytest.raises(CatalogError, match=r"no query.*query_fraction 0"):
        run(params(shop, query_fraction=0.0), workspace)
    with pytest.raises(CatalogError, match="no database image"):
        run(params(shop, validation_fraction=0.0, database=("validation",)), workspace)
    (tmp_path / "bad" / "cat").mkdir(parents=True)
    (tmp_path / "bad" / "cat" / "1.png").write_bytes(b"no")
    with pytest.raises(CatalogError, match=r"all 1 are rejected \(cat/1.png: not an image"):
        run(params(tmp_path / "bad"), workspace)
    assert not workspace.stage("catalog").exists()


def archive(shared: Path, name: str) -> Path:
    path = shared / "data" / name
    if not path.is_file():
        pytest.skip(f"{path} is absent: the real data set is not on this machine")
    return path


def test_clothing_comes_with_its_own_roles(shared: Path, workspace: Workspace, params) -> None:
    metrics = run(params(archive(shared, "clothing-224.tar")), workspace)
    assert (metrics["images/train"], metrics["images/validation"]) == (3068, 341)
    assert (metrics["images/queries"], metrics["images/database"]) == (372, 3781)
    assert (metrics["labels"], metrics["images/rejected"]) == (10, 0)


def test_omniglot_is_split_five_of_twenty(shared: Path, workspace: Workspace, params) -> None:
    metrics = run(params(archive(shared, "omniglot-small.tar")), workspace)
    catalog = tables(workspace)
    assert metrics["labels"] == 242
    assert set(label_counts(catalog["queries"])["count"]) == {5}
    assert set(label_counts(catalog["database"])["count"]) == {20}
    assert (len(catalog["train"]), len(catalog["validation"])) == (242 * 12, 242 * 3)


def test_a_copy_that_was_saved_again_is_told_or_refused(
    tmp_path: Path, workspace: Workspace, params, capsys
) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    scene = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
    for path, quality in {"train/a/1.jpg": 95, "test/a/2.jpg": 60, "train/b/3.jpg": 95}.items():
        (tmp_path / "shop" / path).parent.mkdir(parents=True, exist_ok=True)
        scene.rotate(180 * (path[6] == "b")).save(tmp_path / "shop" / path, quality=quality)
    plain = {"validation_fraction": 0.0}
    metrics = run(params(tmp_path / "shop", **plain), workspace)
    assert metrics["leaks/near_image"] == 1 and metrics["leaks/same_file"] == 0
    assert "leaks: nearly the same picture (1)" in capsys.readouterr().out
    leaks = pl.read_parquet(workspace.stage("catalog") / "leaks.parquet")
    assert leaks.select("query", "image").rows() == [("test/a/2.jpg", "train/a/1.jpg")]
    message = r"refuse.*nearly the same picture: test/a/2.jpg and train/a/1.jpg.*leaks to report"
    with pytest.raises(CatalogError, match=message):
        run(params(tmp_path / "shop", leaks="refuse", **plain), workspace)


def test_the_protocol_is_a_fact_beside_the_tables(shop: Path, workspace: Workspace, params) -> None:
    run(params(shop, leaks="refuse"), workspace)
    protocol = read_json(workspace.stage("catalog") / "protocol.json")
    assert (protocol["format"], protocol["protocol"]) == ("folders", "given")
    assert set(protocol["leaks"].values()) == {0}
    with pytest.raises(CatalogError, match=r"'irgen' is not defined for the format 'folders'"):
        run(params(shop, protocol="irgen"), workspace)


def test_only_the_tables_of_images_are_data_sets_of_a_run(
    shop: Path, workspace: Workspace, params, root: Path
) -> None:
    run(params(shop), workspace)
    shutil.copy(root / "dvc.yaml", workspace.data.parent / "dvc.yaml")
    tables = provenance.describe_tables(workspace.data.parent, "catalog")
    assert sorted(table["name"] for table in tables) == sorted(NAMES)
