"""What does not fit an index, or comes from somebody who may not write, changes nothing."""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch

from irgen.errors import IndexingError
from irgen.index import damage, rows
from irgen.index.index import Index

from .conftest import NAMES


def refusals(small: SimpleNamespace) -> list[tuple[str, str, dict[str, Any]]]:
    """List calls that are refused: the method, the message, the arguments."""
    one, two = small.images(["x"]), small.images(["x", "y"])
    flat = one["embeddings"]
    return [
        ("add_encoded", "in the index already: 'bb'; use upsert", {"ids": ["x", "bb"], **two}),
        ("add_encoded", "given twice: 'x'", {"ids": ["x", "x"], **two}),
        ("add_encoded", "id 0 is 7", {"ids": [7], **one}),
        ("add_encoded", r"shape \(1, 8\): 2 ids .* \(2, 8\)", {"ids": ["x", "y"], **one}),
        ("add_encoded", r"floats of shape \(1, 8\)", {"ids": ["x"], "embeddings": flat[:, :7]}),
        ("add_encoded", "int64 of shape", {"ids": ["x"], "embeddings": flat.long()}),
        ("add_encoded", "'x' is not finite", {"ids": ["x"], "embeddings": flat * torch.nan}),
        ("add_encoded", "length inf", {"ids": ["x"], "embeddings": flat * torch.inf}),
        ("add_encoded", r"length 2\).*normalise", {"ids": ["x"], "embeddings": flat * 2}),
        ("add_encoded", "0 to 7", {"ids": ["x"], **one, "codes": torch.tensor([[0, 1, 8]])}),
        ("add_encoded", "from -1", {"ids": ["x"], **one, "codes": torch.tensor([[0, 1, -1]])}),
        ("add_encoded", r"codes are int64 .*\(1, 3\)", {"ids": ["x"], **one, "codes": [[1, 2]]}),
        ("add_encoded", "codes are float32", {"ids": ["x"], **one, "codes": torch.ones(1, 3)}),
        (
            "upsert_encoded",
            "'lable' .*did you mean 'label'",
            {"ids": ["x"], **one, "metadata": pl.DataFrame({"lable": ["a"]})},
        ),
        (
            "upsert_encoded",
            "'price' is of type String",
            {"ids": ["x"], **one, "metadata": pl.DataFrame({"price": ["cheap"]})},
        ),
        ("add_encoded", "2 rows for 1", {"ids": ["x"], **one, "metadata": small.metadata("ab")}),
        (
            "remove",
            "not in the index: 'x', 'y', 'z' and 1 more",
            {"ids": ["x", "y", "z", "w", "a"]},
        ),
        ("remove", "given twice: 'a'", {"ids": ["a", "a"]}),
        ("remove", "not the one string 'a'", {"ids": "a"}),
    ]


def test_what_cannot_be_done_is_told_and_nothing_is_done(index: Index, small) -> None:
    before, revision = small.contents(index), index.revision
    for method, message, arguments in refusals(small):
        with pytest.raises(IndexingError, match=message):
            getattr(index, method)(**arguments)
    assert small.contents(index) == before
    assert index.revision == revision


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trained": torch.ones(5)}, "trained is float32"),
        ({"trained": torch.ones(4, dtype=torch.bool)}, r"not bool of shape \(5,\)"),
        ({"codes": torch.zeros(5, 2).long()}, r"shape \(5, 2\)"),
        ({"embeddings": torch.ones(5, 8)}, "length 2.828"),
        ({"items": pl.DataFrame({"id": ["a", "b", "c", "d", "a"]})}, "given twice: 'a'"),
        ({"items": pl.DataFrame({"id": ["a"]})}, "1 "),
        ({"items": pl.DataFrame({"id": [1, 2, 3, 4, 5]})}, "id 0 is 1"),
    ],
)
def test_a_new_index_of_what_does_not_fit_is_refused(
    tmp_path: Path, small, change, message
) -> None:
    with pytest.raises(IndexingError, match=message):
        small.create(tmp_path / "index", NAMES, **change)
    assert list(tmp_path.iterdir()) == []


def test_two_ids_of_one_key_are_never_mixed_up(tmp_path, small, add, monkeypatch) -> None:
    true = rows.hash_ids

    def hash_ids(ids):  # now x and x' have one key
        return true([name.removesuffix("'") for name in ids])

    for module in ("rows", "view", "store"):
        monkeypatch.setattr(f"irgen.index.{module}.hash_ids", hash_ids)
    with Index.open(small.create(tmp_path / "index", ["x", "z"]), writable=True) as index:
        for put in ("add_encoded", "upsert_encoded"):
            with pytest.raises(IndexingError, match="'x' and \"x'\" have the same 63-bit hash"):
                add(index, "x'", put=put)
        with pytest.raises(IndexingError, match='not in the index: "x\'"'):
            index.remove(["x'"])
        assert index.view.find(["x'"]).tolist() == [-1]
        index.remove(["x"])
        add(index, "x'")
        assert small.contents(index).keys() == {"x'", "z"}
        with pytest.raises(IndexingError, match="have the same"):
            add(index, "x")
        index.remove(["x'"])
        add(index, "x", version=1)
        index.compact()
        assert small.contents(index)["x"] == small.expected(["x"], 1)["x"]


def test_only_a_writer_that_is_open_and_no_fork_of_it_writes(folder, index, add, small) -> None:
    with Index.open(folder) as reader:
        calls: list[Callable] = [
            lambda: add(reader, "x"),
            lambda: add(reader, "x", put="upsert_encoded"),
            lambda: reader.remove(["a"]),
            reader.compact,
        ]
        for call in calls:
            with pytest.raises(IndexingError, match="opened for reading: open it with writable"):
                call()
    index._writer._process += 1
    with pytest.raises(IndexingError, match="of which this is a fork"):
        index.remove(["a"])
    index._writer._process -= 1
    index.close()
    index.close()
    with pytest.raises(IndexingError, match="was closed: open it again"):
        index.remove(["a"])


def test_a_file_that_a_limit_keeps_closed_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "metadata.arrow"
    for error in (OSError(24, "Too many open files"), OSError(12, "Cannot allocate memory")):
        for refusal in (damage.damaged(path, error), damage.unreadable(path, error)):
            assert "it is not damaged: raise the limit" in str(refusal)
    assert "restore the folder" in str(damage.unreadable(path, OSError(5, "Input/output error")))


def test_a_low_limit_of_open_files_is_not_called_damage(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    Index.open(folder).close()
    lowest = os.dup(0)
    os.close(lowest)
    reasons = []
    for count in range(12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
        try:
            Index.open(folder).close()
        except (IndexingError, OSError, RuntimeError) as error:
            reasons.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert reasons and not any("is damaged" in text for text in reasons), reasons
