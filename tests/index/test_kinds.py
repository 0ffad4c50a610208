"""Images get the number of their label, and without one that of their code."""

import polars as pl
import torch

from irgen.index.kinds import complete_kinds, number_labels


def test_labels_that_were_not_taught_have_numbers_of_their_own():
    labels = pl.Series(["dog", "emu", "cat", "emu", "elk"])
    kinds = number_labels(labels, ["cat", "dog"])
    assert kinds[[0, 2]].tolist() == [1, 0]
    assert kinds[1] == kinds[3] != kinds[4] and int(kinds[[1, 4]].min()) >= 2
    again = number_labels(pl.Series(["elk", None, "emu"]), ["cat", "dog"])
    assert again.tolist() == [int(kinds[4]), -1, int(kinds[1])]


def test_an_image_without_a_label_has_the_likeliest_of_its_first_code():
    code_labels = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    codes = torch.tensor([[1, 0], [0, 1], [1, 1]])
    kinds = complete_kinds(torch.tensor([-1, -1, 7]), codes, code_labels)
    assert kinds.tolist() == [1, 0, 7]


def test_no_image_has_no_number():
    assert number_labels(pl.Series([], dtype=pl.String), ["cat"]).tolist() == []
