"""The catalogue of a list: its columns are roles, labels and metadata."""

from pathlib import Path

import polars as pl

from irgen.catalog import manifest
from irgen.files.workspace import Workspace

from .conftest import Png, rejected, run, tables


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
