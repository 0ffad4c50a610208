"""A saved text encoder reads the same bits, and knows the same words."""

import pytest
import torch

from irgen.checkpoints.text import load_text_encoder, save_text_encoder
from irgen.errors import ArtifactError

from .. import tiny

NUMBERS = ["a red circle", "Größe: zwölf"]


def test_what_was_saved_reads_the_same_bits(tmp_path):
    model = tiny.text_encoder(["red circle", "blue square"], embedding_width=6)
    save_text_encoder(tmp_path / "one", model)
    loaded = load_text_encoder(tmp_path / "one")
    numbers = model.number([text.split() for text in NUMBERS])
    assert torch.equal(numbers, loaded.number([text.split() for text in NUMBERS]))
    for before, after in zip(model(numbers), loaded(numbers), strict=True):
        assert torch.equal(before, after)
    assert loaded.words == model.words == {"red", "circle", "blue", "square"}
    save_text_encoder(tmp_path / "two", loaded)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_catalogue_without_texts_has_no_encoder(tmp_path):
    save_text_encoder(tmp_path / "none", None)
    assert load_text_encoder(tmp_path / "none") is None


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="is missing"):
        load_text_encoder(tmp_path / "text")
