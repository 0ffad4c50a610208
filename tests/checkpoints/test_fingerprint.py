"""A weights file that is replaced in place is noticed, whatever ``encoder.weights`` is."""

import dataclasses
from pathlib import Path

from irgen.checkpoints.fingerprint import NAME, have_weights_changed, note_weights

from ..tiny import ENCODER


def test_weights_without_a_file_never_change(tmp_path: Path) -> None:
    for weights in ("none", "hub"):
        config, folder = dataclasses.replace(ENCODER, weights=weights), tmp_path / weights
        assert have_weights_changed(folder, config), "they were never noted"
        assert not note_weights(folder, config)
        assert not have_weights_changed(folder, config)


def test_a_file_that_is_replaced_is_noticed_once(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"first")
    config = dataclasses.replace(ENCODER, weights=str(file))
    assert not note_weights(tmp_path, config)
    file.write_bytes(b"other")
    assert have_weights_changed(tmp_path, config)
    assert note_weights(tmp_path, config)
    assert not have_weights_changed(tmp_path, config)
    assert not note_weights(tmp_path, config)


def test_a_machine_without_the_file_keeps_what_was_noted(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"first")
    config = dataclasses.replace(ENCODER, weights=str(file))
    note_weights(tmp_path, config)
    noted = (tmp_path / NAME).read_bytes()
    file.unlink()
    assert not note_weights(tmp_path, config)
    assert (tmp_path / NAME).read_bytes() == noted
