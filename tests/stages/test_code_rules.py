"""Codes by other rules than the tokenizer's go through the stages that do not serve."""

import json
import shutil
from pathlib import Path

import pytest

from irgen.checkpoints.identifiers import load_codes
from irgen.errors import IndexingError
from irgen.report.comparison import METHODS

from .conftest import SMALL, files, run, small_params


def codes_of(folder: Path) -> dict[str, dict[str, list[int]]]:
    """Codes by role and id."""
    codes = {}
    for role in ("train", "validation", "database", "queries"):
        identified = load_codes(folder / "data/identifiers" / role)
        codes[role] = dict(zip(identified.ids, identified.codes.tolist(), strict=True))
    return codes


@pytest.mark.parametrize("rule", ["random", "hierarchical_kmeans", "rqvae"])
def test_codes_by_another_rule_go_through_all_stages_that_do_not_serve(copy, root, rule):
    folder, _ = copy
    before = codes_of(folder)
    embeddings = (folder / "data/identifiers/database/embeddings.npy").read_bytes()
    params = small_params(
        folder,
        root,
        identifiers={"rule": rule, "rqvae_steps": 10},
        retriever=SMALL["retriever"] | {"steps": 28},
    )
    shutil.rmtree(folder / "data/index")
    metrics = run(params, folder, "identifiers", "trie", "retriever", "evaluate", "report")
    after = codes_of(folder)
    assert after["database"] != before["database"]
    assert all(after["database"][name] == code for name, code in after["train"].items())
    assert (folder / "data/identifiers/database/embeddings.npy").read_bytes() == embeddings
    measured = json.loads((folder / "data/evaluate/metrics.json").read_text())
    assert set(measured) == {"queries", *METHODS} - {"brute_force_codes", "index"}
    assert 0 < measured["generative"]["precision/10"] <= 1
    for level in range(2):
        entries = [code[level] for code in after["database"].values()]
        assert 0 <= min(entries) <= max(entries) < 16
    if rule == "rqvae":
        error = metrics["identifiers"]
        assert error["rqvae/error/level_2"] < error["rqvae/error/level_1"] < 1
    for stage in ("index", "drift"):
        with pytest.raises(IndexingError, match=f"rule: '{rule}'.*identifiers.rule to semantic"):
            run(params, folder, stage)
    assert not (folder / "data/index").exists()


def test_codes_by_any_rule_repeat_byte_for_byte(copy, root):
    folder, _ = copy
    for rule in ("random", "hierarchical_kmeans", "rqvae"):
        params = small_params(folder, root, identifiers={"rule": rule, "rqvae_steps": 3})
        run(params, folder, "identifiers")
        first = files(folder / "data/identifiers")
        shutil.rmtree(folder / "data/identifiers")
        run(params, folder, "identifiers")
        assert files(folder / "data/identifiers") == first


def test_without_the_trie_identifiers_that_do_not_exist_are_counted_and_find_nothing(copy, root):
    folder, _ = copy
    bound = json.loads((folder / "data/evaluate/metrics.json").read_text())
    sections = SMALL["evaluate"] | {"trie": False}
    run(small_params(folder, root, evaluate=sections), folder, "evaluate")
    free = json.loads((folder / "data/evaluate/metrics.json").read_text())
    for name in ("brute_force_pretrained", "brute_force_tuned", "brute_force_codes", "index"):
        assert free[name] == bound[name]
    for name in ("generative", "generative_reranked"):
        assert 0 < free[name]["invalid"] < 1 and "invalid" not in bound[name]
        assert 0 < free[name]["precision/10"] <= bound[name]["precision/10"] + 0.05
    run(
        small_params(folder, root, evaluate={"beams": 256, "trie": False, "candidates": 300}),
        folder,
        "evaluate",
    )
    every = json.loads((folder / "data/evaluate/metrics.json").read_text())
    codes = codes_of(folder)["database"].values()
    exist = len({tuple(code) for code in codes}) / 16**2
    assert every["generative"]["invalid"] == pytest.approx(1 - exist)
