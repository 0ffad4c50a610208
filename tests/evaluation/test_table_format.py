from irgen.evaluation.table_format import render_markdown, render_text


def test_a_table_without_rows_shows_its_columns() -> None:
    assert render_text(["id", "score"], [], right=["score"]).splitlines()[0].split() == [
        "id",
        "score",
    ]
    assert render_markdown(["id"], []).startswith("| id")


def test_numbers_stay_as_they_are_written() -> None:
    rows = [["1,234", "0.50"], ["12", "–"]]
    assert [line.split() for line in render_text(["n", "p"], rows).splitlines()[2:]] == rows


def test_columns_may_share_a_name() -> None:
    lines = render_text(["", "a", "a"], [["x", "1", "22"]], right=["a"]).splitlines()
    assert lines[-1].split() == ["x", "1", "22"]
