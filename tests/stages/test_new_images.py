"""New images join the database, train nothing, and are drift only if they differ."""

import dataclasses
import json
import shutil
from pathlib import Path

import polars as pl
from PIL import Image, ImageOps

from irgen.index.index import Index
from irgen.params import Params

from .conftest import AGAIN, SMALL, files, run, small_params, write_digits


def test_new_images_join_the_database_and_leave_training_as_it_is(copy):
    folder, params = copy
    before = files(folder / "data")
    write_digits(folder / "digits", 34)
    params = dataclasses.replace(
        params, download=dataclasses.replace(params.download, source=str(folder / "digits"))
    )
    shutil.copy(next((folder / "digits/3").glob("*.png")), folder / "digits/3/copy.png")
    (folder / "digits/4/broken.png").write_bytes(b"no")
    assert run(params, folder, "download")["download"]["images/new"] == 42
    metrics = run(params, folder, *AGAIN)
    after = files(folder / "data")
    usable = {f"{path.parent.name}/{path.name}" for path in (folder / "digits").rglob("*.png")}
    usable.remove("4/broken.png")
    with Index.open(folder / "data/index") as index:
        assert set(index.view.all_ids()) == usable, "every image can be found, new ones too"
    assert metrics["catalog"]["images/queries"] == 70  # a fifth of 34 of each label, rounded
    for unchanged in (
        "catalog/train.parquet",
        "catalog/validation.parquet",
        "features/train/features.npy",
        "identifiers/train/codes.parquet",
        "identifiers/validation/codes.parquet",
    ):
        assert after[unchanged] == before[unchanged]
    assert metrics["trie"]["images"] > len(pl.read_parquet(folder / "data/catalog/train.parquet"))
    assert after["trie/trie.safetensors"] != before["trie/trie.safetensors"]
    assert metrics["index"]["images"] == metrics["trie"]["images"]
    assert metrics["index"]["trained"] == len(
        pl.read_parquet(folder / "data/catalog/train.parquet")
    )


def with_new_images(folder: Path, params: Params, **settings) -> tuple[dict[str, float], dict]:
    """Run the drift stage on the new images of the source; return its metrics and its verdict."""
    drift = dataclasses.replace(params.drift, minimum_images=20, **settings)
    run(dataclasses.replace(params, drift=drift), folder, "download", *AGAIN)
    metrics = json.loads((folder / "data/drift/metrics.json").read_text())
    return metrics, json.loads((folder / "data/drift/verdict.json").read_text())


def test_without_new_images_nothing_has_drifted(built):
    folder, _, metrics = built
    assert metrics["drift"]["images/new"] == metrics["drift"]["drifted"] == 0
    assert metrics["drift"]["images/database"] == 300  # with queries, in neither training table
    assert json.loads((folder / "data/drift/metrics.json").read_text()) == metrics["drift"]
    verdict = json.loads((folder / "data/drift/verdict.json").read_text())
    assert verdict["exceeded"] == [] and (verdict["revision"], verdict["trained"]) == (1, 1)
    assert not [name for name in metrics["drift"] if name.startswith("signal/")]
    queries = metrics["catalog"]["images/queries"]
    assert metrics["drift"]["quality/old/queries"] == queries
    measured = json.loads((folder / "data/evaluate/metrics.json").read_text())["index"]
    same = {k: v for k, v in metrics["drift"].items() if k.startswith("quality/old/precision/")}
    assert same == {
        f"quality/old/{k}": v for k, v in measured.items() if k.startswith("precision/")
    }


def test_new_images_of_known_classes_are_no_drift(copy, root):
    folder, params = copy
    params = small_params(folder, root)
    write_digits(folder / "digits", 40)
    figures, verdict = with_new_images(folder, params)
    assert figures["images/new"] == verdict["new"] == 100  # 10 of each digit; 2 of each measure
    assert figures["quality/new/queries"] == 20
    assert verdict["enough"] and not verdict["drifted"], verdict
    assert verdict["revision"] == figures["revision"] == 2


def test_images_of_unknown_classes_and_known_ones_in_a_new_guise_are_drift(copy, root, capsys):
    folder, params = copy
    params = small_params(folder, root)
    for path in sorted((folder / "digits").rglob("*.png"))[::5]:
        with Image.open(path) as picture:
            changed = ImageOps.solarize(picture.convert("L"), 100)  # strokes turn hollow
        changed.save(path.with_name(f"changed-{path.name}"))
    _, verdict = with_new_images(folder, params)
    assert verdict["drifted"]
    assert "residual_ratio" in {each["name"] for each in verdict["exceeded"]}
    assert "unseen_labels" not in {each["name"] for each in verdict["exceeded"]}
    assert "They differ too much from the training images" in capsys.readouterr().out
    assert "<h2>Drift</h2>" in (folder / "reports/index.html").read_text()
    shutil.move(folder / "digits/7", folder / "digits/seven")
    _, verdict = with_new_images(folder, params, residual_ratio=1000.0)
    (labels,) = (each for each in verdict["exceeded"] if each["name"] == "unseen_labels")
    assert 0.1 < labels["value"] < 1 and verdict["revision"] == 3


def test_the_retriever_is_not_trained_on_images_that_are_inserted_later(copy, root):
    folder, _ = copy
    whole = len(pl.read_parquet(folder / "data/catalog/train.parquet"))
    params = small_params(
        folder,
        root,
        catalog={"inserted_fraction": 0.25},
        tokenizer=SMALL["tokenizer"] | {"steps": 28},
        retriever=SMALL["retriever"] | {"steps": 28},
    )
    stages = ("catalog", "features", "pairs", "tokenizer", "identifiers", "trie", "retriever")
    metrics = run(params, folder, *stages, "index", "evaluate", "drift")
    inserted = metrics["catalog"]["images/inserted"]
    assert 0.2 < inserted / whole < 0.3
    assert metrics["index"]["trained"] == whole - inserted
    assert metrics["index"]["images"] == metrics["catalog"]["images/database"]
    assert metrics["drift"]["images/new"] == 0  # nothing has come since
