"""The catalog stage: from downloaded images to checked tables with roles."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from irgen.catalog import manifest
from irgen.catalog.leaks import KINDS
from irgen.catalog.table import NAMES, label_counts, read_table
from irgen.errors import ArtifactError, CatalogError
from irgen.files.records import read_json
from irgen.files.workspace import Workspace
from irgen.params import Params, load
from irgen.stages import catalog, download
from irgen.tracking import provenance

Png = Callable[[int], bytes]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "project")


@pytest.fixture
def params(root: Path) -> Callable[..., Params]:
    plain = load(root / "params.yaml")
    usual = {"query_fraction": 0.25, "validation_fraction": 0.2}

    def of(source: object, **changes: object) -> Params:
        return dataclasses.replace(
            plain,
            download=dataclasses.replace(plain.download, source=str(source)),
            catalog=dataclasses.replace(plain.catalog, **(usual | changes)),
        )

    return of


@pytest.fixture
def shop(tmp_path: Path, png: Png) -> Path:
    """Twenty cats, eight dogs, one owl, an empty class, and a broken cat."""
    sizes = {"cat": 20, "dog": 8, "owl": 1, "emu": 0}
    for start, (label, size) in enumerate(sizes.items()):
        (tmp_path / "shop" / label).mkdir(parents=True)
        for i in range(size):
            (tmp_path / "shop" / label / f"{i:02d}.png").write_bytes(png(start * 100 + i))
    (tmp_path / "shop" / "cat" / "99.png").write_bytes(b"no")
    return tmp_path / "shop"


def no_log(metrics: dict[str, float], step: int) -> None:
    raise AssertionError("nothing has steps here")


def run(params: Params, workspace: Workspace) -> dict[str, float]:
    download.run(params, workspace, no_log)
    return catalog.run(params, workspace, no_log)


def tables(workspace: Workspace) -> dict[str, pl.DataFrame]:
    return {name: read_table(workspace.stage("catalog") / f"{name}.parquet") for name in NAMES}


def rejected(workspace: Workspace) -> list[tuple]:
    return pl.read_parquet(workspace.stage("catalog") / "rejected.parquet").rows()


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


def test_a_list_brings_roles_metadata_and_rejections(
    tmp_path: Path, workspace: Workspace, params, png: Png
) -> None:
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    text = "path,label,role,id,price,number\n0.png,a,train,z,1,7\n1.png,a,test,y,2.5,7\n"
    text += "2.png,b,,x,,7\n3.png,,train,w,4,7\n8.png,b,train,v,5,7\n"
    (tmp_path / "shop.csv").write_text(text)
    metrics = run(params(tmp_path / "shop.csv"), workspace)
    catalog = tables(workspace)
    assert catalog["database"].select(
        "id", "role", pl.col("metadata").struct.field("price")
    ).rows() == [
        ("x", "train", None),
        ("y", "query", 2.5),
        ("z", "train", 1.0),
    ]
    assert catalog["queries"]["metadata"].struct.field("price").to_list() == [2.5]
    assert catalog["queries"]["metadata"].struct.field("number").to_list() == [
        7
    ]  # a name that published sets use inside
    assert "metadata" not in catalog["train"].columns
    assert rejected(workspace) == [
        ("3.png", "neither a class folder nor a list gives it a label"),
        ("8.png", "the list names it, but the file is not there"),
    ]
    assert metrics["images/rejected"] == 2


NAMES_OF_A_USER = (
    *("reason", "inserted", "draw", "lot", "both", "seen", "across", "down", "allow", "count"),
    *("key", "size", "etag", "sha256", "revision", "shard", "offset", "version", "gone", "part"),
    *("width", "height", "number", "rowid", "row", "query", "score", "index", "embedding"),
    *("metadata", "metadata.width", "id_right", "role_right", "Label", "LABEL", "Id", "ROLE"),
    *("", " ", "a b", 'a "quote"', "a.b", "größe", "select", "price", "Price", "x" * 300),
)


def test_a_users_columns_may_have_any_name(
    tmp_path: Path, workspace: Workspace, params, png: Png
) -> None:
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(png(i) if i else b"")
    shop = {"path": [f"{i}.png" for i in range(8)], "label": "a", "role": "", "id": None}
    mine = {name: [f"{name} {i}" for i in range(8)] for name in NAMES_OF_A_USER}
    pl.DataFrame(shop | mine).write_parquet(tmp_path / "shop.parquet")
    for _ in range(2):  # made, and read again
        run(params(tmp_path / "shop.parquet"), workspace)
        assert [key for key, _ in rejected(workspace)] == ["0.png"]
        database = tables(workspace)["database"]
        assert database["metadata"].to_list() == pl.DataFrame(mine)[1:].to_dicts()
        assert database["width"].min() > 0
    revision = manifest.read_revision(workspace.stage("download"))[0]
    assert revision == 1, "an unchanged list is no new revision"


def test_a_corrected_price_does_not_touch_the_training_tables(
    tmp_path: Path, workspace: Workspace, params, png: Png
) -> None:
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    written = []
    for price in (1, 2.5):
        lines = [f"{i}.png,a,{price}" for i in range(8)]
        (tmp_path / "shop.csv").write_text("\n".join(["path,label,price", *lines]))
        run(params(tmp_path / "shop.csv"), workspace)
        written.append((workspace.stage("catalog") / "train.parquet").read_bytes())
    assert written[0] == written[1]
    assert set(tables(workspace)["database"]["metadata"].struct.field("price")) == {2.5}


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
    about = read_json(workspace.stage("catalog") / "protocol.json")
    assert (about["format"], about["protocol"]) == ("folders", "given")
    assert set(about["leaks"].values()) == {0}
    with pytest.raises(CatalogError, match=r"'irgen' is not defined for the format 'folders'"):
        run(params(shop, protocol="irgen"), workspace)


def test_only_the_tables_of_images_are_data_sets_of_a_run(
    shop: Path, workspace: Workspace, params, root: Path
) -> None:
    run(params(shop), workspace)
    shutil.copy(root / "dvc.yaml", workspace.data.parent / "dvc.yaml")
    tables = provenance.describe_tables(workspace.data.parent, "catalog")
    assert sorted(table["name"] for table in tables) == sorted(NAMES)


def by_clusters(params: Params) -> Params:
    tokenizer = dataclasses.replace(params.tokenizer, labels="clusters")
    return dataclasses.replace(params, tokenizer=tokenizer)


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
