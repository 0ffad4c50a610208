"""Approximate searches beside brute-force search, on points whose neighbours are easy to find."""

import builtins
import dataclasses
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from irgen.errors import CatalogError, ExtraError
from irgen.evaluation import ann, methods
from irgen.params.baselines import Hnsw, IvfPq, Scann, Spann
from irgen.search.brute_force import brute_force_search

SCANN = Scann(lists=8, probes=8, part=2, anisotropy=0.2, reranked=60)
SETTINGS = {
    "hnsw": Hnsw(links=16, build=100, search=64),
    "ivf_pq": IvfPq(lists=8, probes=8, code_bytes=16),
    "scann": SCANN,
    "scann_like": SCANN,
    "spann_like": Spann(heads=0.16, copies=4, closure=0.2, probes=20),
}
HERE = [name for name in SETTINGS if name != "scann" or ann.import_scann()]
POINTS, WIDTH, K = 600, 32, 10


def build(name: str, database: torch.Tensor, **changes: float) -> methods.Method:
    encoder = methods.encode_as_vectors(lambda pixels: pixels, torch.zeros(1, database.shape[1]))
    settings = dataclasses.replace(SETTINGS[name], **changes)
    return getattr(ann, name)(encoder, database, settings)


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    """POINTS + 40 unit vectors (·, WIDTH) around 20 centres."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, WIDTH, generator=generator)
    near = 0.4 * torch.randn(POINTS + 40, WIDTH, generator=generator)
    return F.normalize(centres.repeat(32, 1) + near, dim=-1)


@pytest.mark.parametrize("name", HERE)
def test_it_finds_nearly_all_that_an_exact_scan_finds(name, points):
    database, queries = points[:POINTS], points[POINTS:]
    exact = brute_force_search(queries, database, K)
    result = build(name, database).search(queries, K)
    shared = [
        len(set(a) & set(b)) for a, b in zip(result.ids.tolist(), exact.ids.tolist(), strict=True)
    ]
    assert np.mean(shared) / K > (
        0.6 if name == "ivf_pq" else 0.95
    )  # by its codes, without vectors
    cosines = (queries[:, None] * database[result.ids]).sum(-1)
    close = 0.15 if name == "ivf_pq" else 1e-4
    torch.testing.assert_close(result.scores, cosines, atol=close, rtol=0)
    assert (result.scores.diff(dim=1) <= 1e-6).all()


@pytest.mark.parametrize("name", HERE)
def test_no_image_comes_twice_and_a_list_that_is_too_long_is_padded(name, points):
    result = build(name, points[:40]).search(points[POINTS : POINTS + 4], 50)
    assert result.ids.shape == result.scores.shape == (4, 50)
    for ids, scores in zip(result.ids.tolist(), result.scores, strict=True):
        real = [row for row in ids if row >= 0]
        assert len(real) == len(set(real)) and set(real) <= set(range(40))
        assert ids[len(real) :] == [-1] * (50 - len(real))
        assert torch.isfinite(scores[: len(real)]).all()
        assert (scores[len(real) :] == -torch.inf).all()
        assert len(real) >= 10


@pytest.mark.parametrize("name", HERE)
def test_the_same_vectors_give_the_same_index(name, points):
    database, queries = points[:POINTS], points[POINTS:]
    one, other = (build(name, database) for _ in range(2))
    assert one.bytes_per_image == other.bytes_per_image
    a, b = one.search(queries, K), other.search(queries, K)
    assert torch.equal(a.ids, b.ids)
    torch.testing.assert_close(a.scores, b.scores, atol=1e-6 if name == "scann" else 0, rtol=0)


def test_torch_has_its_threads_again_when_an_index_is_built(points):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        build("hnsw", points[:POINTS])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_sizes_are_those_of_vectors_links_and_codes(points):
    size = {name: build(name, points[:POINTS]).bytes_per_image for name in HERE}
    whole = 4 * WIDTH
    assert size["hnsw"] > whole + 2 * 4 * 16  # the vector, and 2 · links of four bytes
    assert size["spann_like"] > whole  # more than one copy, and the centroids
    codes = 16 + 8  # bytes of code, and the number of the image
    shared = (8 * WIDTH + 256 * WIDTH) * 4 / POINTS  # centroids and codebooks
    assert size["ivf_pq"] == pytest.approx(codes + shared, rel=0.1)
    for name in {"scann", "scann_like"} & size.keys():
        assert whole + WIDTH / 4 < size[name] < 2 * whole  # four bits for two dimensions


def test_copies_near_borders_find_what_one_list_alone_would_miss(points):
    database, queries = points[:POINTS], points[POINTS:]
    exact = brute_force_search(queries, database, K).ids.tolist()

    def share(**changes: float) -> float:
        result = build("spann_like", database, probes=2, **changes).search(queries, K).ids.tolist()
        return np.mean([len(set(a) & set(b)) for a, b in zip(result, exact, strict=True)]) / K

    assert share(closure=0.3) > share(copies=1) + 0.05


@pytest.mark.parametrize("name", ["hnsw", "scann_like"])
def test_a_deep_list_is_not_searched_for_harder_than_a_short_one(name, points):
    method = build(
        name, points[:POINTS], **({"search": 32} if name == "hnsw" else {"reranked": 32})
    )
    deep, short = (method.search(points[POINTS:], k).ids for k in (400, 32))
    assert torch.equal(deep[:, :32], short) and (deep[:, 32:] == -1).all()


@pytest.mark.parametrize("name", HERE)
def test_a_handful_of_images_of_any_width_is_enough(name):
    database = F.normalize(torch.randn(17, 6, generator=torch.Generator().manual_seed(1)), dim=-1)
    result = build(name, database).search(database, 3)
    assert (result.ids[:, 0] >= 0).all()
    with pytest.raises(CatalogError, match="15 database images; at least 16 are needed"):
        build(name, database[:15])


def test_a_missing_library_is_one_error_that_names_what_to_install(monkeypatch, points):
    whole = builtins.__import__

    def without(name: str, *rest: object) -> ModuleType:
        if name.split(".")[0] in ("faiss", "scann"):
            raise ImportError(f"No module named {name!r}", name=name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    expected = r"faiss is not installed: pip install -c constraints.txt -e '.\[compare\]'"
    with pytest.raises(ExtraError, match=expected):
        build("hnsw", points)
    assert ann.import_scann() is None
    with pytest.raises(ExtraError, match=r"scann is not installed: .*'.\[scann\]'"):
        build("scann", points)
