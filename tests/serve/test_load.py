"""A made-up index is like the real one that it is drawn from; the service is measured over it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from irgen.index.index import Index
from irgen.models import quantizer
from irgen.releases import store

COUNT = 3000


@pytest.fixture(scope="module")
def project(
    make_project: Callable[..., Path],
    run_benchmark: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return a project of three releases of made-up images."""
    folder = tmp_path_factory.mktemp("made-up")
    real = make_project(folder / "real")
    (real / "params.yaml").write_text("seed: 0\n")
    run_benchmark("made_up_index", "--like", real, "--root", folder / "large", "--images", COUNT)
    return folder / "large"


def test_the_first_release_is_served_and_the_second_shares_most_of_its_images(
    project: Path,
) -> None:
    releases = store.list_releases(store.path_in(project))
    assert [listed.version for listed in releases] == [3, 2, 1]
    assert store.read_champion(store.path_in(project)) == releases[-1]
    second, first = (
        set(Index.open(store.path_in(project) / listed.name).view.all_ids())
        for listed in releases[-2:]
    )
    assert len(first) == len(second) == COUNT
    assert len(first & second) == COUNT * 0.99


def test_codes_fit_the_embeddings_and_a_search_finds_an_image(project: Path) -> None:
    with Index.open(store.path_in(project) / "champion") as index:
        segment = index.view.snapshot.segments[0]
        codes = quantizer.encode(segment.embeddings.float(), index.folder.codebooks)
        assert torch.equal(codes, segment.codes.long())
        pictures = sorted((project / "queries").iterdir())
        assert len(pictures) == 40
        assert index.search([pictures[0]], 5).ids.shape == (1, 5)


@pytest.mark.slow
def test_the_service_is_measured_while_releases_and_images_change(
    project: Path, run_benchmark: Callable[..., str], tmp_path: Path
) -> None:
    sizes = ("--users", 4, "--seconds", 20, "--writes", 3, "--results", tmp_path)
    printed = run_benchmark("serve", "--root", project, "--load", "--overhead", *sizes)
    assert printed.strip() == (tmp_path / "serve.md").read_text().strip()
    measured = {
        name: section["measured"]
        for name, section in json.loads((tmp_path / "serve.json").read_text()).items()
    }
    assert 0 < measured["overhead"]["overhead"] < measured["overhead"]["whole"]
    load = measured["load"]
    assert load["searches"]["requests"] > 10
    assert load["searches"]["failures"] == 0
    assert load["changes"]["swap"]["failures"] == load["changes"]["writes"]["failures"] == 0
    assert load["images"] == COUNT + 3
