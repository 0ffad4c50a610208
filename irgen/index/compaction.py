"""A fresh generation of what is alive, written while the index goes on."""

import shutil
from pathlib import Path

from torch import Tensor

from irgen.index import disk, generation
from irgen.index.bundle import Bundle
from irgen.index.generation import Generation
from irgen.index.view import View


def write(view: View, bundle: Bundle, folder: Path) -> None:
    """Writes what is alive in ``view`` as a generation into the new folder ``folder``. Raises
    IndexingError if an embedding it reads is not what was written."""
    view.generation.check_embeddings(bundle.generation(view.generation.number))
    alive = view.snapshot.alive_rows()

    def embeddings(places: Tensor) -> Tensor:
        return view.snapshot.gather(alive[places], "embeddings")

    generation.write(folder, view.gather(alive.numpy()), embeddings, bundle.codebooks.shape[2])


def next_generation(bundle: Bundle, view: View) -> Generation:
    """Writes what is alive in ``view`` as the generation to follow the view's own, and reads it
    back. It does not count yet."""
    number = view.generation.number + 1
    folder = bundle.generation(number)
    temporary = folder.with_name(f".{number}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)  # of a compaction that failed before it counted
    try:
        with disk.full_disk_told(f"compacting {bundle.folder}"):
            write(view, bundle, temporary)
            disk.settle_tree(temporary)
            temporary.rename(folder)
            disk.settle(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return generation.read(folder, number)
