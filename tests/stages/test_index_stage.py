"""The index that the pipeline makes: what it holds and finds, and its calibration."""

import shutil

import numpy as np
import polars as pl
import pytest
import torch

from irgen.checkpoints.calibration import load_calibration
from irgen.checkpoints.identifiers import load_codes
from irgen.checkpoints.ranking import load_ranking
from irgen.index.index import Index
from irgen.search.calibration import Calibration
from irgen.search.ranking import Ranking

from .conftest import run, small_params


def test_the_index_opens_alone_and_holds_the_database(built, tmp_path):
    folder, _, metrics = built
    shutil.copytree(folder / "data/index", tmp_path / "index")
    database = pl.read_parquet(folder / "data/catalog/database.parquet")
    train = pl.read_parquet(folder / "data/catalog/train.parquet")
    identified = load_codes(folder / "data/identifiers/database")
    with Index.open(tmp_path / "index") as index:
        view, snapshot = index.view, index.view.snapshot
        rows = np.arange(len(index))
        assert set(view.ids(rows)) == set(database["id"])
        kept = view.take(rows).sort("id")
        assert kept.equals(database.drop("role"))
        ids, order = view.ids(rows), np.argsort(view.ids(rows))
        assert torch.equal(snapshot.segments[0].codes[order].long(), identified.codes)
        own = snapshot.segments[0].embeddings[order]
        assert torch.equal(own, identified.embeddings.half())
        trained = snapshot.segments[0].trained.tolist()
        assert {name for name, was in zip(ids, trained, strict=True) if was} == set(train["id"])
        assert index.info()["config"] == {
            "search": {
                "beams": 8,
                "candidates": 40,
                "fresh_beams": 30,
                "hedge": 20.0,
            },
            "encoder_precision": "fp32",
            "queries": metrics["catalog"]["images/queries"],
        }
        index.verify()
    assert metrics["index"]["images"] == len(database)
    assert 0 < metrics["index"]["bytes_per_image"] < 1000


def test_the_row_of_the_index_is_what_a_search_of_it_finds(built):
    """But for the query itself; also where it is asked for more images than it has beams."""
    folder, params, _ = built
    k = max(params.evaluate.cutoffs)
    assert params.evaluate.beams < k
    queries, database = (
        pl.read_parquet(folder / f"data/catalog/{name}.parquet") for name in ("queries", "database")
    )
    with Index.open(folder / "data/index", precision="fp32") as index:
        paths = [folder / "digits" / path for path in queries["path"]]
        hits = index.search(paths, k + 1, index.options(k))
    ranked = pl.read_parquet(folder / "data/evaluate/runs/index.parquet")
    for query, (own, ids) in enumerate(zip(queries["id"], hits.ids.tolist(), strict=True)):
        rows = ranked.filter(query=query)["item"]
        others = [name for name in ids if name not in (own, None)][:k]
        assert database["id"][rows.to_list()].to_list() == others


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_image_added_to_the_index_gets_what_the_pipeline_would_have_given(copy, root, precision):
    folder, params = copy
    if precision != params.compute.precision:
        params = small_params(folder, root, compute={"batch_size": 64, "precision": precision})
        run(params, folder, "features", "identifiers", "index")
    database = pl.read_parquet(folder / "data/catalog/database.parquet")[:100]
    identified = load_codes(folder / "data/identifiers/database")
    paths = [folder / "digits" / path for path in database["path"]]
    shutil.copytree(folder / "data/index", folder / "index")
    with Index.open(folder / "index", writable=True) as index:
        index.add(paths, [f"{name} again" for name in database["id"]])
        added = index.view.snapshot.segments[1]
        assert torch.equal(added.codes.long(), identified.codes[:100])
        expected = identified.embeddings[:100].half()
        torch.testing.assert_close(added.embeddings, expected, atol=1e-3, rtol=1e-3)


def test_the_calibration_is_of_hits_of_validation_images_that_are_not_themselves(built):
    folder, params, metrics = built
    calibration = load_calibration(folder / "data/index/models/calibration.json")
    assert isinstance(calibration, Calibration)
    validation = pl.read_parquet(folder / "data/catalog/validation.parquet")
    assert calibration.queries == len(validation)
    assert 0 < calibration.pairs <= len(validation) * max(params.evaluate.cutoffs)
    assert calibration.cosines[-1] < 0.99999  # of an image with itself it is 1
    assert metrics["index"]["calibration/error"] == calibration.error < 0.3
    assert all(abs(metrics["index"][f"calibration/gap/{n}"]) < 0.3 for n in ("trained", "fresh"))


def test_the_ranking_is_fitted_to_the_validation_images(built):
    folder, _, metrics = built
    ranking = load_ranking(folder / "data/index/models/ranking.json")
    assert isinstance(ranking, Ranking)
    validation = pl.read_parquet(folder / "data/catalog/validation.parquet")
    assert ranking.queries == len(validation) == metrics["index"]["ranking/queries"]
    assert metrics["index"]["ranking/error"] == ranking.error < 0.3
