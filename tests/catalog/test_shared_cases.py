"""The inputs of ../shared/cases, each after a public report, give the right values.

Each case makes its inputs and runs the product on them; its transcript and its files are judged
here. Two of them also look into modules of an older version, which ends their script early.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog.table import read_table

pytestmark = pytest.mark.slow

Run = Callable[[str], str]


@pytest.fixture
def run(shared: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a case in the working folder of the test, and return what it printed."""
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip(f"{cases} is absent: the cases are not on this machine")
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {
        "PROJECT": str(root),
        "PYTHONPATH": os.pathsep.join([str(root), str(cases)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }

    def transcript(number: str) -> str:
        script = next(cases.glob(f"{number}-*")) / "repro.py"
        command = [sys.executable, str(script)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        return done.stdout + done.stderr

    return transcript


def database() -> pl.DataFrame:
    return read_table(Path("data/catalog/database.parquet"))


def metadata() -> pl.DataFrame:
    """Return the user's columns of the catalogue."""
    return database()["metadata"].struct.unnest()


def keys() -> list[str]:
    return pl.read_parquet("data/download/manifest.parquet")["key"].to_list()


def rejections() -> dict[str, str]:
    return dict(pl.read_parquet("data/catalog/rejected.parquet").rows())


def labels(transcript: str) -> list[list[str]]:
    """Return the labels of each run that the transcript shows."""
    shown = re.findall(r"labels (\[.*?\])(?:\n|$)", transcript)
    return [[name.strip("\"'") for name in line.strip("[]").split(", ")] for line in shown]


def test_01_a_column_named_reason_rejects_nothing(run: Run) -> None:
    transcript = run("01")
    assert list(rejections()) == ["i/bad.jpg"] and "empty" in rejections()["i/bad.jpg"]
    assert database()["width"].unique().to_list() == [40]
    assert metadata()["reason"].drop_nulls().to_list() == ["returned by customer"] * 4
    assert "does not decode" not in transcript and transcript.count("[exit 0]") == 3


def test_02_no_column_of_the_user_is_lost(run: Run) -> None:
    run("02")
    assert {"inserted", "draw", "colour"} <= set(metadata().columns)
    assert metadata()["draw"].n_unique() == 24


def test_03_a_type_is_kept_or_refused_before_anything_is_computed(run: Run) -> None:
    transcript = run("03")
    if "[exit 2]" in transcript.split("$ irgen catalog")[0]:
        assert "price" in transcript
    else:
        first = metadata().row(0, named=True)
        assert float(first["price"]) == 9.99 and list(first["box"]) == [0, 0, 1, 1]
        assert first["about"] == {"colour": "red", "size": 42}


def test_05_images_of_any_ending_are_read_and_others_are_told(run: Run) -> None:
    transcript = run("05")
    read = set(keys())
    assert {"a/a.avif", "a/b.jfif", "a/c.jpe", "a/d.jpg_large", "a/e.JPG ", "a/f"} <= read
    assert {"a/h.jp2", "only avif/1.avif"} <= read
    for name in ("a/g.heic", ".NET shirt/1.jpg", "a/.5mm bolt.jpg"):
        assert name in read or Path(name).suffix in transcript
    assert "a/g.heic" not in read or "a/g.heic" in rejections()


def test_06_an_image_that_cannot_be_had_is_a_rejection(run: Run) -> None:
    transcript = run("06")
    assert "[exit 2]" not in transcript and transcript.count("[exit 0]") == 8
    assert "Traceback" not in transcript
    assert "a/gone.jpg" in transcript.split("answers 404")[1].split("---")[0]
    for reason in ("403", "451", "500"):
        assert reason in transcript.split(f"answers {reason}")[1].split("---")[0]


def test_08_pictures_that_open_elsewhere_are_not_rejected(run: Run) -> None:
    run("08")
    assert rejections() == {} and database().height == 18


def test_10_numbers_with_leading_zeros_stay_text_and_labels_lose_blanks(run: Run) -> None:
    transcript = run("10")
    shown = re.findall(r"sku is (\w+) (\[.*?\]) \| labels (\[.*?\])", transcript)
    assert [kind for kind, _, _ in shown[:2]] == ["String", "String"]
    assert "'00000', '00001'" in shown[0][1] and "'00000', '00001'" in shown[1][1]
    assert "24 relabelled" not in transcript.split("--allow")[1].split("sku is")[0]
    assert "'cat '" not in shown[2][2]


def test_11_names_that_are_one_to_a_person_are_one(run: Run) -> None:
    transcript = run("11")
    cafe, bins, thumbnails = labels(transcript)[:3]
    assert len(cafe) == 2 and bins == thumbnails == ["a", "b"]
    last = transcript.split("train/*.jpg and test/*.jpg")[1]
    assert "'train'" not in last or "train" in last.split("labels")[0]


def test_12_archives_are_read_whole_or_refused_for_a_true_reason(run: Run) -> None:
    transcript = run("12")
    assert transcript.count("24 new") == 2
    shown = labels(transcript)
    assert ["衬衫", "裤子"] in [sorted(names) for names in shown]
    assert sorted(["ソ帽", "靴下"]) in [sorted(names) for names in shown]
    deflate64 = transcript.split("Deflate64)")[1]
    assert "10 new" in deflate64 or "compression" in deflate64


def test_14_lists_as_catalogues_export_them_are_read(run: Run) -> None:
    parts = dict(
        part.split("\n", 1) for part in run("14").split("--- ")[1:]
    )  # what was printed, by the title of its list
    readable = [title for title in parts if title not in ("https://", "s3://")]
    assert len(readable) == 6
    for title in readable:
        assert re.search(r"12 new|unchanged: 12 images|0 new", parts[title]), parts[title]
        assert "[exit 0]" in parts[title], parts[title]
    for title in ("https://", "s3://"):  # no such server: a true reason
        assert "src/https:" not in parts[title] and "Traceback" not in parts[title]
