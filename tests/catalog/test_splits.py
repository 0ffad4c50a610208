"""Roles are seeded, stratified, exact, and never moved by new images."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.catalog.splits import assign_roles, choose_inserted, choose_inserted_labels

Images = list[tuple[str, int, str | None]]  # label, revision, role


def table(images: Images) -> pl.DataFrame:
    rows = [(f"{label}/{i}", label, role, rev) for i, (label, rev, role) in enumerate(images)]
    schema = {"path": pl.String, "label": pl.String, "role": pl.String, "revision": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(sha256="path")


def roles(images: Images, seed: int = 0, query: float = 0.25, validation: float = 0.2) -> dict:
    done = assign_roles(
        table(images), seed=seed, query_fraction=query, validation_fraction=validation
    )
    return dict(done.select("path", "role").iter_rows())


def count(drawn: dict, role: str) -> int:
    return list(drawn.values()).count(role)


def test_a_quarter_of_twenty_is_exactly_five() -> None:
    for seed in range(5):
        drawn = roles([("a", 1, None)] * 20, seed)
        assert [count(drawn, r) for r in ("query", "validation", "train")] == [5, 3, 12]


def test_the_seed_decides_and_repeats() -> None:
    images: Images = [("a", 1, None)] * 40
    assert roles(images, 1) == roles(images, 1) != roles(images, 2)


def test_a_copy_has_the_role_of_the_first_of_them_under_another_label_too() -> None:
    """Thirty images of a, of which three were given label b later: their roles stay."""
    images: Images = [("a", 1, None)] * 30 + [("b", 2, None)] * 13
    whole = table(images)
    contents = [*whole["sha256"][:30], *whole["sha256"][:3], *whole["sha256"][33:]]
    whole = whole.with_columns(pl.Series("sha256", contents))
    roles_seen = set()
    for seed in range(8):
        drawn = assign_roles(whole, seed=seed, query_fraction=0.25, validation_fraction=0.2)
        assert drawn[30:33]["role"].equals(drawn[:3]["role"])
        assert drawn[:30]["role"].to_list() == list(roles(images[:30], seed).values())
        assert (drawn[33:]["role"] == "query").sum() == 3  # of ten; of the others of b none counts
        roles_seen |= set(drawn[:3]["role"])
    assert roles_seen == {"train", "validation", "query"}


def test_no_content_is_trained_on_and_asked_with() -> None:
    images: Images = [("a", 1, None)] * 12 + [("b", 1, None)] * 12 + [("a", 2, None)] * 12
    contents = [f"content {i % 9}" for i in range(len(images))]
    whole = table(images).with_columns(pl.Series("sha256", contents))
    drawn = assign_roles(whole, seed=0, query_fraction=0.3, validation_fraction=0.3)
    assert drawn["role"].n_unique() == 3
    assert (drawn.group_by("sha256").agg(pl.col("role").n_unique())["role"] == 1).all()


def test_images_that_come_one_at_a_time_are_drawn_like_those_that_come_together() -> None:
    images: Images = [("a", revision, None) for revision in range(1, 21)]
    drawn = roles(images, query=0.2, validation=0.0)
    queries = [revision for revision in range(1, 21) if drawn[f"a/{revision - 1}"] == "query"]
    assert queries == [2, 8, 13, 18]  # when the share, rounded, grows; the second is the least


def test_two_images_of_a_label_are_one_query_and_one_that_is_trained_on() -> None:
    for size, queries in ((1, 0), (2, 1), (3, 1), (5, 1), (8, 2)):
        split = roles([("a", 1, None)] * size, query=0.2, validation=0.0)
        assert (count(split, "query"), count(split, "train")) == (queries, size - queries)
    assert count(roles([("a", 1, None)] * 2, query=0.0), "query") == 0
    whole = table([("a", 1, None)] * 2).with_columns(sha256=pl.lit("the same picture"))
    drawn = assign_roles(whole, seed=0, query_fraction=0.2, validation_fraction=0.0)
    assert drawn["role"].to_list() == ["train", "train"]


def test_one_image_of_each_label_at_least_stays_in_train() -> None:
    for size in (1, 2, 3):
        drawn = roles([("a", 1, None)] * size, query=0.9, validation=0.9)
        assert count(drawn, "train") >= 1
    assert roles([("a", 1, None)], query=0.9) == {"a/0": "train"}


def test_many_labels_of_few_images_have_validation_images_too() -> None:
    drawn = roles(
        [(f"{label:03d}", 1, None) for label in range(200) for _ in range(5)], 0, 0.2, 0.1
    )
    assert count(drawn, "query") == 200
    assert 60 <= count(drawn, "validation") <= 100  # a tenth of the other 800: 80 on average


def test_fractions_of_zero_take_nothing() -> None:
    drawn = roles([("a", 1, None)] * 9, query=0.0, validation=0.0)
    assert count(drawn, "train") == 9


def test_named_queries_stay_and_validation_is_taken_from_train() -> None:
    images: Images = [("a", 1, "train")] * 10 + [("a", 1, "query")] * 4
    drawn = roles(images)
    assert [count(drawn, r) for r in ("query", "validation", "train")] == [4, 2, 8]
    assert all(drawn[f"a/{i}"] == "query" for i in range(10, 14))


def test_named_roles_are_left_as_they_are() -> None:
    images: Images = [("a", 1, "train"), ("a", 1, "validation"), ("a", 1, "query"), ("a", 1, None)]
    assert list(roles(images).values()) == ["train", "validation", "query", "train"]


FIRST = st.lists(st.tuples(st.sampled_from("abc"), st.just(1), st.none()), min_size=1, max_size=30)
LATER = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(2, 4), st.none()), max_size=30)


@settings(deadline=None, max_examples=60)
@given(FIRST, LATER, st.floats(0, 0.9), st.floats(0, 0.9))
def test_images_of_later_revisions_never_move_earlier_ones(
    first: Images, later: Images, query: float, validation: float
) -> None:
    images = first + sorted(later, key=lambda image: image[1])
    after = roles(images, query=query, validation=validation)
    for revision in (1, 2, 3):
        present = [image for image in images if image[1] <= revision]
        before = roles(present, query=query, validation=validation)
        assert {path: after[path] for path in before} == before


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(0, 9)), min_size=1))
def test_copies_that_come_later_never_move_earlier_images(rows: list[tuple]) -> None:
    images: Images = [(label, revision, None) for label, revision, _ in sorted(rows, key=by_date)]
    contents = [f"content {content}" for *_, content in sorted(rows, key=by_date)]
    whole = table(images).with_columns(pl.Series("sha256", contents))
    rule = {"seed": 0, "query_fraction": 0.3, "validation_fraction": 0.3}
    after = assign_roles(whole, **rule)
    for revision in (1, 2, 3):
        before = assign_roles(whole.filter(pl.col("revision") <= revision), **rule)
        assert after[: len(before)].equals(before)


def by_date(row: tuple[str, int, int]) -> int:
    return row[1]


@settings(deadline=None, max_examples=60)
@given(FIRST, st.floats(0, 0.9))
def test_every_label_gives_its_share_of_queries(images: Images, query: float) -> None:
    drawn = roles(images, query=query)
    for label in "abc":
        own = {path: role for path, role in drawn.items() if path.startswith(label)}
        share = max(int(len(own) * query + 0.5), 1 if query else 0)
        expected = min(share, max(len(own) - 1, 0))
        assert count(own, "query") == expected


def late(images: Images, contents: list[str], seed: int = 0, fraction: float = 0.3) -> list[str]:
    """Return the paths of the images that are searched and not trained on."""
    whole = table(images).with_columns(pl.Series("sha256", contents))
    return whole.filter(choose_inserted(whole, seed=seed, fraction=fraction))["path"].to_list()


def test_a_share_of_each_labels_training_images_is_inserted_later_and_nothing_else() -> None:
    images: Images = [("a", 1, "train")] * 20 + [("b", 1, "train")] * 10
    images += [("a", 1, "query")] * 9 + [("a", 1, "validation")] * 9 + [("c", 1, "train")]
    contents = [f"content {i}" for i in range(len(images))]
    inserted = late(images, contents, fraction=0.3)
    assert [sum(path.startswith(label) for path in inserted) for label in "abc"] == [6, 3, 0]
    assert {int(path[2:]) for path in inserted} <= set(range(30))
    assert inserted == late(images, contents, fraction=0.3)
    assert inserted != late(images, contents, seed=1, fraction=0.3)
    assert late(images, contents, fraction=0.0) == []


def test_which_images_are_inserted_follows_from_their_content_and_copies_go_together() -> None:
    contents = [f"content {i // 2}" for i in range(40)]
    images: Images = [("a", 1, "train")] * 40
    inserted = [int(path[2:]) for path in late(images, contents, fraction=0.5)]
    assert len(inserted) == 20 and {i ^ 1 for i in inserted} == set(inserted)
    turned = [int(path[2:]) for path in late(images, contents[::-1], fraction=0.5)]
    assert {contents[i] for i in inserted} == {contents[::-1][i] for i in turned}


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), LATER, st.floats(0, 0.9))
def test_images_of_later_revisions_never_change_which_are_inserted(
    first: int, later: Images, fraction: float
) -> None:
    images: Images = [("a", 1, "train")] * first
    contents = [f"content {i}" for i in range(first + len(later))]
    after = late([*images, *((a, b, "train") for a, b, _ in later)], contents, fraction=fraction)
    before = late(images, contents[:first], fraction=fraction)
    assert [path for path in after if int(path[2:]) < first] == before
    assert len(before) < first  # one at least is trained on


def test_all_images_of_a_share_of_the_labels_are_inserted_but_for_queries() -> None:
    images: Images = [(label, 1, role) for label in "abcde" for role in ("train", "validation")]
    whole = table([*images, *((label, 1, "query") for label in "abcde")])
    labels = {}
    for seed in range(5):
        chosen = whole.filter(choose_inserted_labels(whole, seed=seed, fraction=0.4))
        labels[seed] = tuple(chosen["label"].unique().sort())
        assert len(labels[seed]) == 2 and len(chosen) == 4, "both roles of two labels"
        assert "query" not in chosen["role"]
    assert len(set(labels.values())) > 1, "each seed draws its own"
    for fraction, count in ((0.01, 1), (0.99, 4), (0.0, 0)):
        chosen = whole.filter(choose_inserted_labels(whole, seed=0, fraction=fraction))
        assert chosen["label"].n_unique() == count
