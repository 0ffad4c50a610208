"""Methods asked and judged, on points that a human can rank."""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from irgen.compute.machine import Machine
from irgen.evaluation import latency, measure, methods, metrics, runs
from irgen.evaluation.query_set import QuerySet
from irgen.files.digests import file_digest
from irgen.files.records import read_json
from irgen.report import comparison
from irgen.search.result import Result

CPU = Machine(device=torch.device("cpu"), autocast=None)
ANGLES = torch.tensor([0.0, 0.1, 0.3, 1.5, 1.65])  # of the database's vectors
QUERIES = torch.tensor([0.0, 1.6])


def on_circle(angles: torch.Tensor) -> torch.Tensor:
    return torch.stack([angles.cos(), angles.sin()], 1)


def table(labels: str, hashes: str) -> pl.DataFrame:
    return pl.DataFrame({"label": list(labels), "sha256": list(hashes)})


@pytest.fixture
def config() -> measure.EvalConfig:
    """Two queries, the first of which is in the database itself, among five images."""
    queries, database = table("ab", "vx"), table("aabab", "vwyzu")
    query_set = QuerySet.build(queries, database, min_depth=4)
    images = np.zeros((2, 1, 2, 2), dtype=np.uint8)
    return measure.EvalConfig(
        query_set=query_set,
        cutoffs=(1, 2),
        batch_size=2,
        machine=CPU,
        timing_images=lambda: images,
        build_reference=lambda: methods.brute_force(facing(1), on_circle(ANGLES), 8),
    )


def built(compared: dict[str, methods.Method]) -> dict[str, Callable[[], methods.Method]]:
    """Return builders that return these methods."""
    return {name: partial(dataclasses.replace, method) for name, method in compared.items()}


def facing(way: int) -> methods.Encoder:
    """Queries as they are, or with −1 turned round."""
    return methods.encode_as_vectors(
        lambda pixels: pixels.flatten(1).float()[:, :2], way * on_circle(QUERIES)
    )


def test_methods_are_judged_timed_and_written_without_the_query_itself(config, tmp_path):
    compared = {
        "right": methods.brute_force(facing(1), on_circle(ANGLES), 8),
        "wrong": methods.brute_force(facing(-1), on_circle(ANGLES), 8),
    }
    folder, latency = tmp_path / "any", tmp_path / "latency.json"
    codes = np.arange(10).reshape(5, 2)
    measured = measure.measure_methods(built(compared), config, codes, folder, latency)
    written = read_json(folder / "metrics.json")
    assert written["queries"] == {"count": 2, "without_positive": 0, "total": 2}
    assert measured["right/precision/1"] == 1 and measured["right/precision/2"] == 0.5
    assert measured["right/map/R"] == 0.5  # of both there are two, the other one at rank 3
    assert measured["wrong/precision/1"] == 0 and measured["wrong/bytes_per_image"] == 8
    assert {f"right/{k}": v for k, v in written["right"].items()}.items() <= measured.items()
    ranked = pl.read_parquet(folder / "runs/right.parquet")
    assert ranked.schema == runs.SCHEMA
    assert ranked.filter(query=0)["item"].to_list() == [1, 2]  # image 0 is the query
    assert ranked.filter(query=1)["code"].to_list() == ["8-9", "6-7"]
    times = read_json(latency)
    assert times["metrics_digest"] == file_digest(folder / "metrics.json")
    assert times["machine"]["batch_size"] == 2
    assert all(0 < t["search_ms"] < t["total_ms"] for t in times["methods"].values())
    curves = pl.read_csv(folder / "precision.csv")
    assert curves.filter(method="right")["precision"].to_list() == [1.0, 0.5]
    queries = pl.read_parquet(folder / "queries.parquet")
    assert queries.filter(method="right")["precision/2"].mean() == measured["right/precision/2"]
    recalls = pl.read_csv(folder / "recall.csv").filter(method="right")
    assert recalls["precision"].to_list() == metrics.recall_curve(
        np.array(2 * [[True, False, True, False]]), np.array([2, 2])
    )
    names = {"right": "the right way", "wrong": "the wrong way"}
    assert set(comparison.read(folder / "metrics.json", latency, names).quality) == set(names)


def test_what_is_judged_at_a_cut_off_is_a_search_for_no_more(config, tmp_path):
    right, wrong = (methods.brute_force(facing(way), on_circle(ANGLES), 8) for way in (1, -1))
    asked: list[int] = []

    def search(encoded: torch.Tensor, k: int) -> Result:
        asked.append(k)
        return right.search(encoded, k) if k == 3 else wrong.search(-encoded, k)

    both = dataclasses.replace(right, search=search)
    compared = {"right": right, "wrong": wrong, "both": both}
    measured = measure.measure_methods(
        built(compared), config, np.zeros((5, 2), int), tmp_path, tmp_path / "l.json"
    )
    assert asked == [3, 5, 3], "two and four images and the query itself, then the timed one again"
    for metric in ("precision/1", "hit/2"):
        assert (
            measured[f"both/{metric}"] == measured[f"right/{metric}"] != measured[f"wrong/{metric}"]
        )
    assert measured["both/map/R"] == measured["wrong/map/R"] != measured["right/map/R"]
    queries = pl.read_parquet(tmp_path / "queries.parquet").filter(method="both")
    assert queries["map/R"].mean() == pytest.approx(measured["wrong/map/R"])
    recalls = pl.read_csv(tmp_path / "recall.csv")
    assert (
        recalls.filter(method="both")["precision"].to_list()
        == recalls.filter(method="wrong")["precision"].to_list()
        != recalls.filter(method="right")["precision"].to_list()
    )


def test_without_labels_methods_are_compared_with_the_nearest_that_is_none_of_them(
    config, tmp_path
):
    queries, database = (
        each.with_columns(label=pl.lit(None, pl.String))
        for each in (config.query_set.queries, config.query_set.database)
    )
    query_set = QuerySet(queries, database, np.zeros(2, int), depth=2, total=2)
    blind = dataclasses.replace(config, query_set=query_set)
    compared = {
        "same": methods.brute_force(facing(1), on_circle(ANGLES), 8),
        "other": methods.brute_force(facing(-1), on_circle(ANGLES), 8),
    }
    measured = measure.measure_methods(
        built(compared), blind, np.zeros((5, 2), int), tmp_path, tmp_path / "l.json"
    )
    assert measured["same/agreement/1"] == measured["same/agreement/2"] == 1
    assert measured["other/agreement/1"] == 0
    assert "same/finds_copies" not in measured, "there are no copies"


def test_near_copies_are_found_or_not(config, tmp_path):
    near = dataclasses.replace(config, copies=np.array([[0, 1], [1, 3]]), cutoffs=(1,))
    compared = {
        "right": methods.brute_force(facing(1), on_circle(ANGLES), 8),
        "wrong": methods.brute_force(facing(-1), on_circle(ANGLES), 8),
    }
    measured = measure.measure_methods(
        built(compared), near, np.zeros((5, 2), int), tmp_path, tmp_path / "l.json"
    )
    assert measured["right/finds_copies"] == 0.5  # the nearest to the second query is image 4
    assert measured["wrong/finds_copies"] == 0
    assert measured["queries/with_copy"] == 2


def test_times_name_the_processor_and_what_makes_its_bf16_fast(monkeypatch, tmp_path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    real = latency.Path
    monkeypatch.setattr(latency, "Path", lambda path: cpuinfo if "cpuinfo" in path else real(path))
    one = "processor : 0\nmodel name\t: {name}\nflags\t\t: fpu avx2 {flags}\n\n"
    cpu = torch.device("cpu")
    cpuinfo.write_text(2 * one.format(name="A Core", flags="avx512_bf16 sse"))
    assert latency.name_processor(cpu) == "A Core with avx512_bf16"
    cpuinfo.write_text(one.format(name="A Core", flags="avx512_bf16 amx_bf16"))
    assert latency.name_processor(cpu) == "A Core with amx_bf16"
    cpuinfo.write_text(one.format(name="An Old Core", flags=""))
    assert latency.name_processor(cpu) == "An Old Core"
    cpuinfo.unlink()
    assert latency.name_processor(cpu), "some other system's name for it"
