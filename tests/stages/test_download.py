"""The download stage tells what changed, and nothing if nothing did."""

import dataclasses
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from irgen.catalog import manifest
from irgen.catalog.shards import Images
from irgen.catalog.sources import archive
from irgen.errors import ParamsError, SourceError
from irgen.files.workspace import Workspace
from irgen.params import Params, load
from irgen.stages import download

Png = Callable[[int], bytes]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "project")


@pytest.fixture
def params(root: Path) -> Callable[[object], Params]:
    plain = load(root / "params.yaml")

    def of(source: object, gigabytes: float = 1.0) -> Params:
        section = dataclasses.replace(plain.download, source=str(source), max_gigabytes=gigabytes)
        encoder = dataclasses.replace(plain.encoder, weights="hub")  # one is chosen
        return dataclasses.replace(plain, download=section, encoder=encoder)

    return of


def no_log(metrics: dict[str, float], step: int) -> None:
    raise AssertionError("nothing has steps here")


def zipped(path: Path, contents: dict[str, bytes]) -> Path:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    path.write_bytes(file.getvalue())
    return path


def test_the_digits_come_once(workspace: Workspace, params, capsys) -> None:
    metrics = download.run(params("digits"), workspace, no_log)
    assert (metrics["images/total"], metrics["images/new"], metrics["revision"]) == (1797, 1797, 1)
    assert capsys.readouterr().out == "1,797 new, 0 changed, 0 gone → revision 1\n"
    assert download.run(params("digits"), workspace, no_log) == {}
    assert capsys.readouterr().out == "source unchanged: 1,797 images, revision 1\n"


def test_a_folder_that_changes_is_told_in_one_line(
    tmp_path: Path, workspace: Workspace, params, png: Png, capsys
) -> None:
    shop = tmp_path / "shop"
    for i in range(3):
        (shop / "cat").mkdir(parents=True, exist_ok=True)
        (shop / "cat" / f"{i}.png").write_bytes(png(i))
    download.run(params(shop), workspace, no_log)
    (shop / "cat" / "0.png").unlink()
    (shop / "cat" / "9.png").write_bytes(png(9))
    capsys.readouterr()
    assert download.run(params(shop), workspace, no_log)["images/gone"] == 1
    assert capsys.readouterr().out == "1 new, 0 changed, 1 gone → revision 2\n"
    os.utime(shop / "cat" / "9.png")
    assert download.run(params(shop), workspace, no_log) == {}
    assert "revision 2" in capsys.readouterr().out


def test_an_archive_that_has_not_changed_is_not_opened(
    tmp_path: Path, workspace: Workspace, params, png: Png, monkeypatch
) -> None:
    path = zipped(tmp_path / "shop.zip", {"cat/1.png": png(1), "dog/1.png": png(2)})
    download.run(params(path), workspace, no_log)
    opened: list[Path] = []
    plain = archive.list_archive
    monkeypatch.setattr(
        archive, "list_archive", lambda *a, **k: opened.append(a[0]) or plain(*a, **k)
    )
    assert download.run(params(path), workspace, no_log) == {}
    assert opened == []
    os.utime(path, ns=(1, 1))
    assert download.run(params(path), workspace, no_log) == {}
    assert opened == [path]
    shutil.rmtree(workspace.stage("download") / "images")  # a lost copy is made again
    assert download.run(params(path), workspace, no_log) == {}
    assert len(Images(workspace.stage("download"))) == 2
    assert len(opened) == 2
    zipped(path, {"cat/1.png": png(1), "dog/1.png": png(3), "owl/1.png": png(4)})
    metrics = download.run(params(path), workspace, no_log)
    assert (metrics["images/new"], metrics["images/changed"], metrics["revision"]) == (1, 1, 2)


def test_a_refused_archive_leaves_nothing(
    tmp_path: Path, workspace: Workspace, params, png: Png
) -> None:
    path = zipped(tmp_path / "shop.zip", {"cat/1.png": png(1), "../evil.png": png(2)})
    with pytest.raises(SourceError, match="refused whole"):
        download.run(params(path), workspace, no_log)
    with pytest.raises(SourceError, match="max_gigabytes"):
        download.run(params(path, gigabytes=1e-9), workspace, no_log)
    assert not (workspace.stage("download") / manifest.NAME).exists()
    assert not (tmp_path / "evil.png").exists()


def test_a_source_that_vanishes_does_not_empty_the_copy(
    tmp_path: Path, workspace: Workspace, params, png: Png
) -> None:
    path = zipped(tmp_path / "shop.zip", {"cat/1.png": png(1)})
    download.run(params(path), workspace, no_log)
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        download.run(params(path), workspace, no_log)
    assert len(Images(workspace.stage("download"))) == 1


def test_a_training_revision_ahead_of_all_revisions_is_refused(
    workspace: Workspace, params
) -> None:
    """As after the loss of data/download: each update would train until revisions reach it."""
    plain = params("digits")
    late = dataclasses.replace(plain.catalog, training_revision=3)
    for _ in range(2):  # also when the source has not changed
        with pytest.raises(ParamsError, match=r"training\.yaml: revision: 3 .* set it to 1"):
            download.run(dataclasses.replace(plain, catalog=late), workspace, no_log)


def test_a_retrain_under_way_spares_what_the_models_before_it_were_trained_on(
    tmp_path: Path, workspace: Workspace, params, png: Png, monkeypatch
) -> None:
    shop, plain = tmp_path / "shop" / "cat", params(tmp_path / "shop")

    def trained(revision: int) -> Params:
        section = dataclasses.replace(plain.catalog, training_revision=revision)
        return dataclasses.replace(plain, catalog=section)

    shop.mkdir(parents=True)
    for number in (1, 2):  # a shard each
        (shop / f"{number}.png").write_bytes(png(number))
        download.run(trained(1), workspace, no_log)
    (shop / "2.png").unlink()
    download.run(trained(2), workspace, no_log)
    shard = workspace.stage("download") / "images" / "r00002-000.tar"
    monkeypatch.setenv("IRGEN_PREVIOUS_REVISION", "2")
    download.run(trained(3), workspace, no_log)
    assert shard.exists(), "the retrain may be taken back"
    download.run(trained(2), workspace, no_log)
    assert shard.exists()
    monkeypatch.delenv("IRGEN_PREVIOUS_REVISION")
    download.run(trained(3), workspace, no_log)
    assert not shard.exists(), "it was released: nothing served was trained on it"


def test_a_source_that_meets_the_encoder_of_the_digits_is_warned_of_at_once(
    params: Callable[..., Params],
    workspace: Workspace,
    root: Path,
    png: Png,
    tmp_path: Path,
    capsys,
) -> None:
    (tmp_path / "shop" / "cat").mkdir(parents=True)
    (tmp_path / "shop" / "cat" / "1.png").write_bytes(png(1))
    plain = dataclasses.replace(
        params(tmp_path / "shop"), encoder=load(root / "params.yaml").encoder
    )
    download.run(plain, workspace, no_log)
    assert capsys.readouterr().out.startswith("WARNING: No encoder is chosen")
