"""The code tree's first level in pictures."""

import polars as pl

from irgen.study.code_pictures import CODES, IMAGES, describe_labels, draw_code_pictures


def tables(first: list[int]) -> tuple[pl.DataFrame, pl.DataFrame]:
    ids = [f"image-{row}" for row in range(len(first))]
    codes = pl.DataFrame({"id": ids, "level_1": first, "level_2": [0] * len(first)})
    labels = ["cat" if code % 2 else "dog" for code in first]
    return codes, pl.DataFrame({"id": ids, "sha256": ids, "label": labels})


def test_the_largest_branches_come_first_each_with_its_own_images() -> None:
    codes, table = tables([5] * 30 + [7] * 2 + [4] * 4)
    pictures = draw_code_pictures(codes, table, lambda sha256: sha256, seed=0)
    assert [(each.code, each.images) for each in pictures] == [(5, 30), (4, 4), (7, 2)]
    assert [len(each.thumbnails) for each in pictures] == [IMAGES, 4, 2]
    assert set(pictures[2].thumbnails) == {"image-30", "image-31"}
    assert [each.labels for each in pictures] == ["cat 100%", "dog 100%", "cat 100%"]


def test_only_so_many_branches_are_shown_and_the_same_each_time() -> None:
    codes, table = tables([code for code in range(40) for _ in range(3)])
    pictures = draw_code_pictures(codes, table, str, seed=1)
    assert len(pictures) == CODES and pictures == draw_code_pictures(codes, table, str, seed=1)


def test_many_labels_and_none_are_told() -> None:
    assert (
        describe_labels(pl.Series("label", ["a", "b", "c", "d"])) == "a 25%, b 25%, c 25%, 1 more"
    )
    assert describe_labels(pl.Series("label", [None, None], dtype=pl.String)) == "no labels"
