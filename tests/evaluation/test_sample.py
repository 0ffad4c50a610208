"""Samples to measure on: the same at every seed, and nearly the same as the catalogue grows."""

import numpy as np
import polars as pl

from irgen.evaluation.sample import draw_sample

IDS = pl.DataFrame({"id": [f"image-{number:04d}.jpg" for number in range(1000)]})


def test_few_images_are_all_taken_in_their_order():
    assert draw_sample(IDS, 1000).tolist() == list(range(1000))
    assert draw_sample(IDS.head(0), 5).tolist() == []


def test_a_sample_is_in_order_spread_over_the_catalogue_and_holds_no_image_twice():
    rows = draw_sample(IDS, 300)
    assert len(rows) == 300 and (np.diff(rows) > 0).all()
    assert all(20 < (rows // 250 == quarter).sum() < 130 for quarter in range(4))


def test_a_sample_of_a_catalogue_that_grew_by_a_tenth_has_nine_tenths_of_the_images():
    before = set(IDS.head(900)[draw_sample(IDS.head(900), 300)]["id"])
    after = set(IDS[draw_sample(IDS, 300)]["id"])
    assert 250 < len(before & after) < 300


def test_one_picture_a_thousand_times_does_not_fill_the_sample():
    copies = pl.DataFrame({"id": [f"copy/{number}" for number in range(1000)]})
    rows = draw_sample(pl.concat([copies, IDS]), 200)
    assert 60 < (rows < 1000).sum() < 140
