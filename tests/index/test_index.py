"""The live index: images are added, replaced and removed, and it says what it holds."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from irgen.catalog.images.pixels import Decoding
from irgen.errors import ImageError, IndexingError
from irgen.index import networks
from irgen.index.index import Index

from .conftest import NAMES


def test_images_come_are_replaced_and_go(index: Index, folder: Path, add, small) -> None:
    wanted = small.expected(NAMES, trained=None)
    add(index, "x", "a new one")
    wanted |= small.expected(["x", "a new one"])
    assert small.contents(index) == wanted
    add(index, "bb", "y", "x", version=1, put="upsert_encoded")
    wanted |= small.expected(["bb", "y", "x"], version=1)
    assert small.contents(index) == wanted
    index.remove(["a", "y"])
    del wanted["a"], wanted["y"]
    assert small.contents(index) == wanted
    add(index, "a", "y", version=2)
    wanted |= small.expected(["a", "y"], version=2)
    assert small.contents(index) == wanted
    with Index.open(folder) as reader:
        assert small.contents(reader) == wanted


def test_the_view_is_searched_by_rows_that_its_items_name(index: Index, add) -> None:
    add(index, "x")
    view = index.view
    rows = view.snapshot.alive_rows().numpy()
    ids = view.ids(rows)
    assert sorted(ids) == sorted([*NAMES, "x"])
    assert view.find(ids).tolist() == rows.tolist()
    assert view.find(["x", "nobody", "a"]).tolist()[1] == -1
    assert view.table["id"][rows].to_list() == ids


def test_codes_are_the_codebooks_where_none_are_given(index: Index, small) -> None:
    books = index.folder.codebooks
    embedding = torch.nn.functional.normalize(books[0, 3], dim=0)[None]
    index.add_encoded(embedding, ["x"])
    assert small.contents(index)["x"][0][0] == 3
    assert small.contents(index)["x"][3] == (None, None), "metadata is null where none is given"


def test_an_empty_call_changes_nothing(index: Index, small) -> None:
    before = index.revision
    index.add_encoded(torch.empty(0, small.D), [])
    index.upsert_encoded(np.empty((0, small.D), np.float16), [], codes=torch.empty(0, 3).int())
    index.remove([])
    assert index.revision == before


def test_metadata_columns_may_have_any_name(tmp_path: Path, small) -> None:
    columns = {"key": [1], "code": ["x"], "allow": [True], "a 'quoted\" name": [2.5], "": [None]}
    table = pl.DataFrame({"id": ["a"], **columns})
    folder = small.create(tmp_path / "index", ["a"], items=table)
    with Index.open(folder, writable=True) as index:
        index.upsert_encoded(ids=["a"], metadata=pl.DataFrame({"key": [2]}), **small.images(["a"]))
    with Index.open(folder) as index:
        assert small.contents(index)["a"][3] == (2, None, None, None, None)


def test_info_says_what_is_in_it(index: Index, folder: Path, add) -> None:
    add(index, "x", "y")
    index.remove(["a", "bb", "x"])
    info = index.info()
    assert len(index) == info["images"] == 4
    assert (info["trained"], info["added"], info["dead_rows"]) == (1, 1, 2)
    assert (info["levels"], info["codebook"], info["width"]) == (3, 8, 8)
    assert info["columns"] == {"label": "String", "price": "Int32"}
    assert info["bytes"]["changes"] >= (folder / "changes.sqlite").stat().st_size
    assert info["bytes"]["models"] == len(b"weights")
    assert (info["base"], info["writable"]) == (1, True)


class Fake:
    """Models whose embedding of an image is its first pixels."""

    decoding = Decoding(size=4, channels=1)

    def __init__(self, codebooks: torch.Tensor):
        self.tokenizer = SimpleNamespace(codebooks=codebooks)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(pixels.flatten(1)[:, :8].float(), dim=1)


def test_images_in_any_form_are_read_by_the_bundles_models(
    index: Index, tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = []

    def load_models(folder: Path, device: torch.device) -> Fake:
        places.append(folder)
        return Fake(index.folder.codebooks)

    monkeypatch.setattr(networks, "load_models", load_models)
    monkeypatch.setattr(networks, "BATCH", 2)
    pixels = np.random.default_rng(0).integers(1, 256, (5, 1, 4, 4), dtype=np.uint8)
    pictures = [Image.fromarray(p[0]) for p in pixels]
    pictures[1].save(tmp_path / "1.png")
    names = list("vwxyz")
    index.add([pictures[0], tmp_path / "1.png", *pictures[2:]], names, small.metadata(names))
    first = small.contents(index)
    index.upsert(torch.from_numpy(pixels), names, small.metadata(names))
    assert small.contents(index) == first
    assert places == [index.folder.path / "models"], "loaded once"
    halves = Fake(torch.empty(0)).embed(torch.from_numpy(pixels)).half().numpy()
    assert [first[name][1] for name in names] == [half.tobytes() for half in halves]
    with pytest.raises(IndexingError, match="already: 'v'"):
        index.add(pictures, names)
    with pytest.raises(IndexingError, match="5 images for 1 ids"):
        index.add(pictures, ["new"])
    with pytest.raises(ImageError, match=r"from image 2 on, .*nowhere\.png: No such file"):
        index.add([*pictures[:2], "nowhere.png"], ["n1", "n2", "n3"])
    with pytest.raises(ImageError, match="write \\[it\\]"):
        index.add(str(tmp_path / "1.png"), ["n1"])
    assert small.contents(index) == first


def test_models_with_other_codebooks_are_refused(index: Index, monkeypatch) -> None:
    monkeypatch.setattr(networks, "load_models", lambda *_: Fake(torch.zeros(3, 8, 8)))
    with pytest.raises(IndexingError, match="the codebooks are not those of its models"):
        _ = index.models
