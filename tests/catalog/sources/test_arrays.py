"""CIFAR's binary versions as sources."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from irgen.catalog import manifest
from irgen.catalog.formats import read_format, recognise_format
from irgen.catalog.sources.arrays import find_cifar, list_cifar
from irgen.catalog.sources.open import open_source
from irgen.catalog.sync import sync
from irgen.errors import SourceError
from irgen.params import load

pytestmark = pytest.mark.filterwarnings("ignore:CIFAR")


def record(labels: list[int], number: int) -> bytes:
    """Labels, then the red, green and blue planes of a picture of its own."""
    planes = np.random.default_rng(number).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    return bytes(labels) + planes.tobytes()


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """CIFAR-10, two images a file."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for i, name in enumerate(names):
        (folder / name).write_bytes(record([i], 2 * i) + record([9], 2 * i + 1))
    words = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "batches.meta.txt").write_text(words.replace(" ", "\n") + "\n\n")
    (folder / "readme.html").write_text("<a>")
    return folder


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    """CIFAR-100, two images a file."""
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for i, name in enumerate(("train.bin", "test.bin")):
        (folder / name).write_bytes(record([1, 0], 2 * i) + record([0, 2], 2 * i + 1))
    (folder / "coarse_label_names.txt").write_text("flowers\nfish\n")
    (folder / "fine_label_names.txt").write_text("apple\naquarium_fish\nbaby\n")
    return folder


def keys(folder: Path) -> list[str]:
    return [entry.key for entry in list_cifar(folder, find_cifar(folder)).entries]


def test_images_are_numbered_through_the_files_of_a_part(ten: Path) -> None:
    by_key = keys(ten)
    assert by_key[:3] == [
        "train/airplane/00000.png",
        "train/truck/00001.png",
        "train/automobile/00002.png",
    ]
    assert by_key[-2:] == ["test/dog/00000.png", "test/truck/00001.png"]
    assert len(by_key) == 12


def test_a_picture_has_the_pixels_of_its_record(ten: Path) -> None:
    entry = next(iter(list_cifar(ten, find_cifar(ten)).entries))
    planes = np.frombuffer(record([0], 0)[1:], np.uint8).reshape(3, 32, 32)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(entry.read()))), planes.transpose(1, 2, 0)
    )


def test_the_fine_label_counts_of_the_hundred(hundred: Path) -> None:
    assert keys(hundred) == [
        "train/apple/00000.png",
        "train/baby/00001.png",
        "test/apple/00000.png",
        "test/baby/00001.png",
    ]


def test_it_is_a_source_of_role_folders(ten: Path, tmp_path: Path, root: Path) -> None:
    source = open_source(replace(load(root / "params.yaml").download, source=str(ten)))
    assert sync(source, tmp_path / "data").images == 12
    assert not sync(source, tmp_path / "data")
    table = manifest.read(tmp_path / "data")
    assert recognise_format(table) == "folders"
    assert read_format(table, "folders")["role"].value_counts(sort=True).rows() == [
        ("train", 10),
        ("query", 2),
    ]


def test_another_number_than_published_is_told(ten: Path) -> None:
    with pytest.warns(UserWarning, match="CIFAR-10: 10 images of train, published: 50,000"):
        keys(ten)


def test_a_python_version_is_refused_and_what_is_damaged_is_told(ten: Path, tmp_path: Path) -> None:
    for name in ("batches.meta", "data_batch_1"):
        (tmp_path / name).write_bytes(b"\x80\x02")
    with pytest.raises(SourceError, match=r"pickles, which may run code.*cifar-10-binary"):
        find_cifar(tmp_path)
    (ten / "test_batch.bin").write_bytes(record([12], 0))
    with pytest.raises(SourceError, match=r"label 12, but batches.meta.txt has 10 names"):
        keys(ten)
    (ten / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(SourceError, match="records of 3,073 bytes, found 5 bytes"):
        keys(ten)
    (ten / "test_batch.bin").unlink()
    with pytest.raises(SourceError, match=r"test_batch.bin cannot be read"):
        keys(ten)
    assert find_cifar(tmp_path / "nowhere") is None
