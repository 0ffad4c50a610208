"""Training data stay as they were while the catalogue changes."""

from pathlib import Path

import polars as pl
import pytest

from irgen.catalog import manifest
from irgen.catalog.table import NAMES, label_counts
from irgen.errors import ArtifactError, CatalogError
from irgen.files.workspace import Workspace
from irgen.stages import catalog

from .conftest import Png, rejected, run, tables


def test_an_image_that_cannot_be_had_is_rejected_with_its_reason_and_an_old_one_stays(
    shop: Path, workspace: Workspace, params, capsys
) -> None:
    (shop / "cat" / "98.png").symlink_to("gone.png")
    run(params(shop), workspace)
    reasons = dict(rejected(workspace))
    assert "No such file or directory (gone.png" in reasons["cat/98.png"]
    assert "1 images cannot be had; the next update tries again" in capsys.readouterr().out
    before = tables(workspace)["database"]
    (shop / "cat" / "00.png").unlink()
    (shop / "cat" / "00.png").symlink_to("gone.png")
    run(params(shop), workspace)
    assert "2 images cannot be had (the old content of 1 stays)" in capsys.readouterr().out
    assert tables(workspace)["database"].equals(before)
    assert dict(rejected(workspace)).keys() == reasons.keys()


def test_new_images_join_the_database_and_leave_training_as_it_was(
    shop: Path, workspace: Workspace, params, png: Png
) -> None:
    run(params(shop), workspace)
    folder = workspace.stage("catalog")
    before = {name: (folder / f"{name}.parquet").read_bytes() for name in NAMES}
    (shop / "cat" / "new").mkdir()
    (shop / "cat" / "new").rmdir()
    for i in range(8):
        (shop / "dog" / f"9{i}.png").write_bytes(png(900 + i))
    run(params(shop), workspace)
    after = {name: (folder / f"{name}.parquet").read_bytes() for name in NAMES}
    assert after["train"] == before["train"] and after["validation"] == before["validation"]
    catalog = tables(workspace)
    assert (len(catalog["database"]), len(catalog["queries"])) == (29 + 8, 7 + 2)
    run(params(shop, training_revision=2), workspace)
    assert len(tables(workspace)["train"]) == 18 + 5


def test_training_keeps_what_the_catalogue_held_at_its_revision(
    shop: Path, params, workspace: Workspace, png: Png
) -> None:
    """Deleted, replaced and new images change the database, never the training tables nor the
    roles of others."""
    run(params(shop), workspace)
    before = tables(workspace)
    gone, replaced = before["train"]["path"].to_list()[:2]
    (shop / gone).unlink()
    (shop / replaced).write_bytes(png(900))
    (shop / before["queries"]["path"][0]).unlink()
    (shop / "owl" / "new.png").write_bytes(png(901))
    run(params(shop), workspace)
    after = tables(workspace)
    for name in ("train", "validation"):
        assert after[name].equals(before[name]), name
    assert after["queries"]["id"].to_list() == [
        *before["queries"]["id"].to_list()[1:],
        "owl/new.png",  # the second owl measures: of each label one image is trained on
    ]
    database = dict(after["database"].select("id", "sha256").iter_rows())
    assert gone not in database and "owl/new.png" in database
    assert database[replaced] != before["train"]["sha256"][1]

    run(params(shop, training_revision=2), workspace)
    retrained = pl.concat([tables(workspace)[name][:, :5] for name in ("train", "validation")])
    assert gone not in retrained["id"]
    assert before["train"]["sha256"][1] not in retrained["sha256"], "what was replaced is forgotten"
    assert set(retrained["sha256"]) < set(database.values())
    run(params(shop), workspace)  # such a retrain was turned down
    assert all(tables(workspace)[name].equals(after[name]) for name in NAMES)


@pytest.mark.parametrize("is_truncated", [True, False])
def test_training_images_never_become_fewer_because_their_bytes_are_lost(
    shop: Path, params, workspace: Workspace, is_truncated: bool
) -> None:
    run(params(shop), workspace)
    gone = tables(workspace)["train"]["path"][0]
    (shop / gone).unlink()
    run(params(shop), workspace)
    before = tables(workspace)["train"]
    shard = workspace.stage("download") / "images" / "r00001-000.tar"
    shard.write_bytes(b"") if is_truncated else shard.unlink()
    with pytest.raises(
        ArtifactError, match=r"1 images .* lacks shard r00001-000.*dvc pull .* to 2"
    ):
        run(params(shop), workspace)
    assert tables(workspace)["train"].equals(before)
    run(params(shop, training_revision=2), workspace)  # as the message says
    assert gone not in tables(workspace)["train"]["path"]


def test_training_images_whose_bytes_were_deleted_on_purpose_are_left_out(
    shop: Path, params, workspace: Workspace
) -> None:
    run(params(shop), workspace)
    gone, folder = tables(workspace)["train"]["path"][0], workspace.stage("download")
    (shop / gone).unlink()
    run(params(shop), workspace)
    past = manifest.read_past(folder).with_columns(shard=pl.lit(None, pl.String))
    manifest.write(folder, manifest.read(folder), revision=2, source=str(shop), past=past)
    catalog.run(params(shop), workspace, lambda metrics, step: None)
    assert gone not in tables(workspace)["train"]["path"]


def test_inserted_images_are_in_the_database_and_not_trained_on(
    shop: Path, workspace: Workspace, params, capsys
) -> None:
    run(params(shop), workspace)
    before = tables(workspace)
    metrics = run(params(shop, inserted_fraction=0.5), workspace)
    catalog = tables(workspace)
    assert label_counts(catalog["train"]).rows() == [("cat", 6), ("dog", 2), ("owl", 1)]
    for name in ("validation", "database", "queries"):
        assert catalog[name].equals(before[name]), name
    late = set(catalog["database"].filter(pl.col("role") == "train")["id"]) - {
        *catalog["train"]["id"]
    }
    assert late == set(before["train"]["id"]) - set(catalog["train"]["id"])
    assert metrics["images/inserted"] == len(late) == 9
    assert "9 of the database not trained on" in capsys.readouterr().out


def test_a_label_that_is_inserted_teaches_nothing_and_can_be_found(
    shop: Path, workspace: Workspace, params
) -> None:
    run(params(shop), workspace)
    before = tables(workspace)
    metrics = run(params(shop, inserted_labels=0.4), workspace)
    catalog = tables(workspace)
    (label,) = set(before["train"]["label"]) - set(catalog["train"]["label"])
    assert label not in catalog["validation"]["label"]
    for name in ("database", "queries"):
        assert catalog[name].equals(before[name]), name
    taught = [before[name].filter(label=label) for name in ("train", "validation")]
    assert metrics["images/inserted"] == sum(map(len, taught))


def test_new_images_leave_what_is_inserted_as_it_is(
    shop: Path, workspace: Workspace, params, png: Png
) -> None:
    run(params(shop, inserted_fraction=0.5), workspace)
    before = tables(workspace)["train"]
    (shop / before["path"][0]).unlink()
    for i in range(8):
        (shop / "dog" / f"9{i}.png").write_bytes(png(900 + i))
    run(params(shop, inserted_fraction=0.5), workspace)
    assert tables(workspace)["train"].equals(before)


def test_images_cannot_be_inserted_into_a_database_without_training_images(
    shop: Path, workspace: Workspace, params
) -> None:
    with pytest.raises(CatalogError, match=r"inserted_fraction is 0.5.*add train"):
        run(params(shop, inserted_fraction=0.5, database=("validation",)), workspace)
