"""An update that would take too much away stops, keeps everything, and asks."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog import guard, manifest
from irgen.catalog.guard import REMOVALS, SOURCE
from irgen.commands.cli import main
from irgen.errors import ReleaseError, RemovalsError, SourceError
from irgen.files.digests import file_digest
from irgen.files.workspace import Workspace
from irgen.params import load
from irgen.stages import download


class Shop:
    """A folder of images as a source: 5 labels of 10, and a project that follows it."""

    def __init__(self, root: Path, project: Path, png: Callable[[int], bytes]) -> None:
        self.root, self.folder, self.away, self.png = root, root / "shop", root / "away", png
        self.workspace = Workspace.at(root)
        params = load(project / "params.yaml")
        section = dataclasses.replace(params.download, source=str(self.folder))
        self.params = dataclasses.replace(params, download=section)
        for label in "abcde":
            self.put(label, range(10))

    def put(self, label: str, numbers: range) -> None:
        (self.folder / label).mkdir(parents=True, exist_ok=True)
        first = int.from_bytes(label.encode()[-8:])
        for number in numbers:
            content = self.png(first + number)
            (self.folder / label / f"{number}.png").write_bytes(content)

    def take(self, *keys: str) -> None:
        """Move images or folders out of the source."""
        for key in keys:
            (self.away / key).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self.folder / key, self.away / key)

    def bring_back(self) -> None:
        shutil.copytree(self.away, self.folder, dirs_exist_ok=True)
        shutil.rmtree(self.away)

    def update(self) -> dict[str, float]:
        return download.run(self.params, self.workspace, lambda metrics, step: None)

    def ask(self) -> str:
        """Update, which must stop and change nothing; return its question."""
        path = self.workspace.manifest
        before = file_digest(path)
        with pytest.raises(RemovalsError) as error:
            self.update()
        assert file_digest(path) == before
        assert str(error.value) == self.note()["message"]
        return str(error.value)

    def note(self) -> dict:
        note = guard.read_note(self.workspace.cache / "download")
        assert note is not None
        return note

    def accept(self) -> dict:
        return guard.accept(self.workspace.stage("download"), self.workspace.cache / "download")

    def images(self) -> pl.DataFrame:
        return manifest.read(self.workspace.stage("download"))


@pytest.fixture
def shop(tmp_path: Path, root: Path, png: Callable[[int], bytes]) -> Iterator[Shop]:
    shop = Shop(tmp_path, root, png)
    shop.update()
    yield shop


def test_a_large_loss_stops_the_update_and_its_return_changes_nothing(shop: Shop) -> None:
    before = shop.images()
    shop.take("a", "b/1.png", "c/1.png")
    question = shop.ask()
    assert "12 of 50 images (a 10, b 1, c 1), all images of a among them" in question
    assert "nothing is removed" in question and "irgen release --accept-removals" in question
    note = shop.note()
    assert (note["kind"], note["gone"], note["whole_labels"]) == (REMOVALS, 12, ["a"])
    assert len(note["examples"]) == 5

    assert shop.ask() and shop.note()["number"] == note["number"]  # the same question
    shop.bring_back()
    assert shop.update() == {}
    assert shop.images().equals(before)
    assert guard.read_note(shop.workspace.cache / "download") is None


def test_new_images_wait_with_the_question_and_are_read_once(shop: Shop) -> None:
    shop.take("a", "b")
    shop.put("f", range(3))
    shop.ask()
    shop.bring_back()
    metrics = shop.update()
    assert (metrics["images/new"], metrics["images/gone"], metrics["revision"]) == (3, 0, 2)


@pytest.mark.parametrize(
    ("gone", "asks"),
    [
        (["a/0.png", "b/0.png", "c/0.png", "d/0.png"], False),
        ([f"{label}/{n}.png" for label in "abcde" for n in range(2)], False),  # exactly 20 %
        ([f"{label}/{n}.png" for label in "abcde" for n in range(2)] + ["a/9.png"], True),
        (["a"], True),  # the whole label, though only 20 %
        ([f"a/{n}.png" for n in range(9)], False),  # one is left of it
    ],
)
def test_a_loss_is_large_from_a_share_or_a_whole_label_on(
    shop: Shop, gone: list[str], asks: bool
) -> None:
    shop.take(*gone)
    if asks:
        shop.ask()
    else:
        assert shop.update()["images/gone"] == len(gone)


def test_small_losses_add_up(shop: Shop) -> None:
    """10 %, then 10 %, then one image: fewer than four fifths of the most there ever were."""
    for number in range(2):
        shop.take(*[f"{label}/{number}.png" for label in "abcde"])
        shop.update()
    shop.take("a/5.png")
    question = shop.ask()
    assert "1 of 40 images (a 1)" in question and "there were 50 once" in question
    shop.accept()
    shop.update()
    shop.take("a/6.png")  # counted from what was accepted
    assert shop.update()["images/gone"] == 1


def test_a_label_that_goes_bit_by_bit_is_asked_about_at_its_last_image(shop: Shop) -> None:
    shop.take(*[f"a/{n}.png" for n in range(7)])
    shop.update()
    shop.take("a")
    assert "all images of a among them" in shop.ask()


def test_as_many_that_come_as_go_are_everyday_work(shop: Shop) -> None:
    for number in range(6):
        shop.take(*[f"{label}/{number}.png" for label in "abcde"])
        shop.put("a", range(20 + 5 * number, 25 + 5 * number))
        shop.update()
    assert len(shop.images()) == 50


def test_a_renamed_folder_is_no_loss(shop: Shop) -> None:
    (shop.folder / "a").rename(shop.folder / "A")
    assert shop.update()["images/gone"] == 10


def test_a_file_that_fits_no_format_is_left_to_the_catalogue_to_explain(shop: Shop) -> None:
    (shop.folder / "stray.png").write_bytes(shop.png(1))
    shop.take("a/1.png")
    assert shop.update()["images/gone"] == 1
    shop.take("b")
    assert "10 of 50 images" in shop.ask()


def test_images_that_became_one_placeholder_are_lost(shop: Shop) -> None:
    for path in shop.folder.glob("[ab]/*.png"):
        path.write_bytes(shop.png(0))
    assert "20 of 50 images (a 10, b 10)" in shop.ask()


def test_images_that_became_stubs_or_error_pages_are_lost(shop: Shop) -> None:
    for number, path in enumerate(shop.folder.glob("[ab]/*.png")):
        path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{number}\n")
    assert "20 of 50 images (a 10, b 10)" in shop.ask()
    for number, path in enumerate(shop.folder.glob("[ab]/*.png")):
        path.write_bytes(shop.png(number + 7))  # new pictures are just that
    assert shop.update()["images/changed"] == 20


def test_acceptance_is_of_the_images_that_were_named_and_no_others(shop: Shop) -> None:
    shop.take("a")
    shop.ask()
    assert shop.accept()["gone"] == 10
    shop.take("b")  # later
    assert "20 of 50 images (a 10, b 10)" in shop.ask()
    shutil.move(shop.away / "b", shop.folder / "b")
    shop.take("c/1.png")  # everyday work beside what was accepted
    metrics = shop.update()
    assert (metrics["images/gone"], metrics["images/total"]) == (11, 39)
    with pytest.raises(ReleaseError, match="no update waits"):
        shop.accept()


def test_an_answer_ends_when_the_source_is_back(shop: Shop) -> None:
    shop.take("a")
    shop.ask()
    shop.accept()
    shop.bring_back()
    assert not download.may_have_changed(shop.params, shop.workspace)  # no stage runs
    shop.take("a")
    shop.ask()


def test_an_answer_is_of_one_manifest(shop: Shop) -> None:
    shop.take("a")
    shop.ask()
    table = shop.images()
    folder = shop.workspace.stage("download")
    manifest.write(folder, table, revision=2, source=str(shop.folder))  # as dvc checkout may
    with pytest.raises(ReleaseError, match="no update waits"):
        shop.accept()


def test_a_role_whose_folder_is_away_is_asked_about(shop: Shop) -> None:
    shop.take(*"abcde")
    for role, count in (("train", 9), ("test", 1)):
        for number, label in enumerate("abcdefg"):
            shop.put(f"{role}/{label}", range(10 * number, 10 * number + count))
    shutil.rmtree(shop.workspace.stage("download"))
    shop.update()
    shop.take("test")
    question = shop.ask()
    assert "7 of 70 images (a 1, b 1" in question and "all query images among them" in question


def test_a_label_of_one_image_may_go(shop: Shop) -> None:
    shop.put("single", range(1))
    shop.update()
    shop.take("single")
    assert shop.update()["images/gone"] == 1


def test_a_share_of_one_never_asks_about_images_but_about_labels(shop: Shop) -> None:
    section = dataclasses.replace(shop.params.download, most_removed=1.0)
    shop.params = dataclasses.replace(shop.params, download=section)
    shop.take(*[f"{label}/{n}.png" for label in "abcde" for n in range(9)])
    assert shop.update()["images/gone"] == 45


def test_a_source_that_is_away_or_empty_keeps_everything(shop: Shop) -> None:
    before = shop.images()
    shop.folder.rename(shop.root / "elsewhere")
    for message in ("cannot be read", "holds no image"):
        with pytest.raises(SourceError, match=f"{message}.*nothing is removed.*bring the source"):
            shop.update()
        assert shop.note()["kind"] == SOURCE
        assert shop.images().equals(before)
        with pytest.raises(ReleaseError, match="no update waits"):
            shop.accept()
        shop.folder.mkdir(exist_ok=True)  # an unmounted mount point
    shop.folder.rmdir()
    (shop.root / "elsewhere").rename(shop.folder)
    assert not download.may_have_changed(shop.params, shop.workspace)


def test_a_list_that_loses_rows_or_labels_asks(shop: Shop, root: Path) -> None:
    rows = [(f"shop/{row.key}", row.key[0]) for row in manifest.rows(shop.images())]

    def write(rows: list[tuple[str, str]]) -> None:
        pl.DataFrame(rows, schema=["path", "label"], orient="row").write_csv(shop.root / "a.csv")

    section = dataclasses.replace(shop.params.download, source=str(shop.root / "a.csv"))
    shop.params = dataclasses.replace(shop.params, download=section)
    shutil.rmtree(shop.workspace.stage("download"))
    write(rows)
    shop.update()
    write(rows[:4])  # cut off while it was written
    assert "46 of 50 images (b 10, c 10, d 10, e 10, a 6)" in shop.ask()
    write([(path, "" if label in "ab" else label) for path, label in rows])
    assert "20 of 50 images" in shop.ask()
    write([(path, label.upper()) for path, label in rows])  # labels that are renamed
    assert shop.update()["images/relabelled"] == 50


def test_the_command_accepts_and_tells_what_comes_next(shop: Shop, capsys) -> None:
    (shop.root / "params.yaml").write_text("garbage: [")  # it needs no settings
    command = ["release", "--accept-removals", "--root", str(shop.root)]
    assert main(command) == 2
    assert "no update waits for a word about removals" in capsys.readouterr().err
    shop.take("a")
    shop.ask()
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Accepted: 10 of 50 images (a 10), all images of a among them" in out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gone"] == 10
    assert main([*command, "--force"]) == 2
    assert shop.update()["images/gone"] == 10
