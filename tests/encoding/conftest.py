"""A few packed pictures, and an encoder that counts what passes through it."""

import dataclasses
import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from irgen.catalog import manifest
from irgen.catalog.shards import Images
from irgen.catalog.sources.listing import Source
from irgen.catalog.sources.local import list_folder
from irgen.catalog.sync import sync
from irgen.compute.machine import Machine
from irgen.encoding.encode import Encoding
from irgen.models.encoder import ImageEncoder
from irgen.params import Augment, Compute

CPU = Machine(device=torch.device("cpu"), autocast=None)
CHANGES = Augment(
    views=3, scale=0.2, rotate=10.0, shear=0.0, shift=0.1, flip=False, colour=0.0, erase=0.0
)


@pytest.fixture
def encoding(tmp_path) -> Encoding:
    """21 grey pictures in batches of eight."""
    pack_pictures(tmp_path, count=21, side=20)
    return open_encoding(tmp_path)


def pack_pictures(root, *, count: int, side: int) -> None:
    """Draw grey pictures and pack them as the download stage does."""
    folder = root / "pictures" / "all"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(count):
        content, values = io.BytesIO(), generator.integers(256, size=(side, side), dtype=np.uint8)
        Image.fromarray(values).save(content, "png")
        (folder / f"{i:02}.png").write_bytes(content.getvalue())
    source = Source(name="pictures", stamp=None, load=lambda: list_folder(folder.parent))
    sync(source, root / "download", shard_bytes=2**20)


def open_encoding(root, batch_size: int = 8) -> Encoding:
    return Encoding(
        images=Images(root / "download"),
        machine=CPU,
        encoder_machine=CPU,
        settings=Compute(device="cpu", precision="fp32", batch_size=batch_size, threads=1),
        cache=root / "cache",
    )


@pytest.fixture
def one_thread():
    """Compute with one thread, as each worker of a cluster does: the last bits depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_cluster(encoding: Encoding) -> Encoding:
    """Return the encoding of the same images on a Ray cluster, with a cache of its own."""
    settings = dataclasses.replace(encoding.settings, engine="ray")
    cache = encoding.cache.with_name("cluster-cache")
    return dataclasses.replace(encoding, settings=settings, cache=cache)


class Counting(ImageEncoder):
    """Count the batches that pass through this encoder."""

    batches = 0

    def forward(self, pixels):
        self.batches += 1
        return super().forward(pixels)


def encoder(seed: int = 0) -> Counting:
    torch.manual_seed(seed)
    options = {"channels": (8, 8, 16, 24), "stem_width": 8}
    backbone = timm.create_model("resnet10t", num_classes=0, in_chans=1, **options)
    return Counting(backbone, 32, 1, 1.0).eval()


def hashes(encoding: Encoding) -> list[str]:
    return sorted(manifest.read(encoding.cache.parent / "download")["sha256"])
