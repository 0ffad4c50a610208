"""The methods table."""

import json

import pytest

from irgen.errors import ArtifactError
from irgen.files.digests import file_digest
from irgen.report import comparison


def quality(precision):
    return {
        "precision/1": precision,
        "precision/10": precision,
        "precision/20": precision,
        "hit/1": precision,
        "hit/10": 0.99,
        "map/R": 0.5,
        "bytes_per_image": 1024.0,
    }


@pytest.fixture
def measured_files(tmp_path):
    """metrics.json and a latency.json that belongs to it."""
    metrics, latency = tmp_path / "metrics.json", tmp_path / "latency.json"
    quality_by_method = {"generative": quality(0.952), "brute_force_tuned": quality(0.96)}
    metrics.write_text(
        json.dumps(quality_by_method | {"queries": {"count": 7, "without_positive": 1}})
    )
    times = {m: {"search_ms": 0.0421, "total_ms": 12.34} for m in quality_by_method}
    latency.write_text(json.dumps({"metrics_digest": file_digest(metrics), "methods": times}))
    return metrics, latency


def test_the_table_has_a_row_a_method_in_the_set_order_with_human_names(measured_files):
    table = comparison.build_table(comparison.read(*measured_files))
    assert table.columns == (
        *("method", "P@1", "P@10", "P@20", "hit@10", "mAP@R"),
        *("ms search", "ms with encoding", "bytes/image"),
    )
    assert table.rows[0] == (
        *("brute force, tuned embeddings", "0.960", "0.960", "0.960", "0.990", "0.500"),
        *("0.042", "12.3", "1,024"),
    )
    assert [row[0] for row in table.rows] == ["brute force, tuned embeddings", "generative search"]
    assert table.note == ""


def test_a_latency_of_other_metrics_is_not_shown(measured_files):
    metrics, latency = measured_files
    metrics.write_text(metrics.read_text() + " ")
    table = comparison.build_table(comparison.read(metrics, latency))
    assert table.rows[0][-3:-1] == ("–", "–")
    assert "not measured on this machine: dvc repro -sf evaluate" in table.note


def test_no_latency_at_all_is_told_in_a_note(measured_files, tmp_path):
    table = comparison.build_table(comparison.read(measured_files[0], tmp_path / "absent.json"))
    assert table.note == comparison.NOT_MEASURED


def test_missing_metrics_are_an_error_that_names_the_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"metrics\.json"):
        comparison.read(tmp_path / "metrics.json", tmp_path / "latency.json")


def test_text_is_aligned(measured_files):
    table = comparison.build_table(comparison.read(*measured_files))
    lines = comparison.format_table(table).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 4


def test_other_cutoffs_have_columns_of_their_own(measured_files):
    metrics = {"generative": {"precision/1": 1.0, "precision/5": 0.8, "hit/5": 1.0, "map/R": 0.7}}
    measured = comparison.Measured(quality=metrics, latency={}, queries={})
    assert comparison.build_table(measured).columns[1:4] == ("P@1", "P@5", "hit@5")
    assert comparison.main_cutoff(measured) == 5


def test_the_verdict_compares_generative_search_with_the_scan_of_the_same_embeddings(
    measured_files,
):
    summary = comparison.summarise(comparison.read(*measured_files))
    assert "95.2% are relevant, 0.8 points less than with brute-force search" in summary
    assert "A query takes 0.042 ms" in summary


def test_equal_methods_are_called_equal_and_lone_ones_are_not_judged():
    same = {"generative": quality(0.9), "brute_force_tuned": quality(0.9001)}
    measured = comparison.Measured(quality=same, latency={}, queries={})
    assert "as many as with brute-force search" in comparison.summarise(measured)
    lone = comparison.Measured(quality={"generative": quality(0.9)}, latency={}, queries={})
    assert comparison.summarise(lone).endswith("90.0% are relevant.")


def test_the_verdict_is_of_the_index_that_people_search(measured_files):
    measured = comparison.read(*measured_files)
    served = {**measured.quality, "index": quality(0.99)}
    verdict = comparison.summarise(comparison.Measured(quality=served, latency={}, queries={}))
    assert verdict.startswith("Of the first 10 images that the served index returns")
    assert "99.0% are relevant, 3.0 points more than with" in verdict


def test_without_labels_the_verdict_and_the_table_speak_of_agreement_alone():
    metrics = {
        "brute_force_tuned": {"agreement/1": 0.5, "agreement/10": 0.7, "bytes_per_image": 24.0},
        "index": {"agreement/1": 0.5, "agreement/10": 0.65, "bytes_per_image": 30.0},
    }
    measured = comparison.Measured(quality=metrics, latency={}, queries={})
    verdict = comparison.summarise(measured)
    assert "65.0% are also among its 10 nearest by the pretrained encoder" in verdict
    assert "5.0 points less than with" in verdict
    table = comparison.build_table(measured)
    assert table.columns[:3] == ("method", "agreement@1", "agreement@10")
    assert not {"hit@10", "mAP@R"} & set(table.columns)


def test_what_only_some_runs_measure_has_a_column_where_it_was_measured(tmp_path):
    metrics = {
        "brute_force_tuned": {"agreement/10": 0.7, "bytes_per_image": 24.0},
        "generative": {"agreement/10": 0.5, "invalid": 0.25, "bytes_per_image": 30.0},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    measured = comparison.read(tmp_path / "metrics.json", tmp_path / "absent.json")
    table = comparison.build_table(measured)
    assert table.columns[1:3] == ("agreement@10", "invalid")
    assert [row[1:3] for row in table.rows] == [("0.700", "–"), ("0.500", "0.250")]


def test_every_method_has_a_title():
    from irgen.evaluation import methods

    assert list(comparison.METHODS) == list(methods.METHODS)
