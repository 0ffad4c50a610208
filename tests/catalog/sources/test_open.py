"""What ``download.source`` may name."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from irgen.catalog.sources.open import open_source
from irgen.errors import SourceError
from irgen.params import Download, load

ROOT = Path(__file__).resolve().parents[3]


def settings_of(name: str, **more: object) -> Download:
    return replace(load(ROOT / "params.yaml").download, source=name, **more)


def source_of(name: str, **more: object):
    return open_source(settings_of(name, **more))


def test_digits_are_eight_by_eight_pngs_with_the_pixels_of_scikit_learn() -> None:
    listing = source_of("digits").load()
    entries = list(listing.entries)
    digits = load_digits()
    assert listing.count == len(entries) == len({e.key for e in entries}) == 1797
    for row in (0, 12, 1796):
        pixels = np.asarray(Image.open(io.BytesIO(entries[row].read())))
        assert entries[row].key == f"{digits.target[row]}/{row:04d}.png"
        assert np.abs(pixels / (255 / 16) - digits.images[row]).max() < 0.04
    assert [e.etag for e in source_of("digits").load().entries] == [e.etag for e in entries]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ftp://example.com/a.zip", "not supported here"),
        ("https://example.com/photos/", "a web server cannot be listed"),
        ("s3://", "names no bucket"),
        ("/nowhere/at/all", "cannot be read"),
        ("", "holds no image"),
    ],
)
def test_what_is_not_there_or_not_supported_is_a_clear_error(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=said):
        source_of(name).load()


def test_a_checksum_that_nothing_would_check_is_refused() -> None:
    with pytest.raises(SourceError, match="sha256: 'digits' is no URL"):
        source_of("digits", sha256="0" * 64)
    with pytest.raises(SourceError, match="s3://shop/photos is not one file"):
        source_of("s3://shop/photos", sha256="0" * 64)


def test_a_file_of_another_kind_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "set.doc").write_bytes(b"?")
    with pytest.raises(SourceError, match=r"no known kind; give 'digits', a folder"):
        source_of(str(tmp_path / "set.doc"))
    (tmp_path / "set.rar").write_bytes(b"Rar!")
    with pytest.raises(SourceError, match=r"are not read; unpack it \(unrar x set.rar\)"):
        source_of(str(tmp_path / "set.rar"))
