"""Indexes of made-up images in tests: no network runs, so they are made in milliseconds."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

Image = tuple[str | None, int]  # content hash, price
LEVELS, SIZE, WIDTH = 2, 4, 8


def embed(contents: Sequence[str | None]):
    """Return an embedding (n, D) and code (n, M) that depend on the content alone."""
    import numpy as np

    generators = [np.random.default_rng(zlib.crc32(str(content).encode())) for content in contents]
    vectors = np.empty((len(contents), WIDTH), np.float32)
    codes = np.empty((len(contents), LEVELS), np.int64)
    for row, generator in enumerate(generators):
        vector = generator.normal(size=WIDTH)
        vectors[row] = vector / np.linalg.norm(vector)
        codes[row] = generator.integers(0, SIZE, LEVELS)
    return vectors, codes


def describe(images: Mapping[str, Image]):
    """Ids and metadata of images."""
    import polars as pl

    rows = [(name, *image) for name, image in images.items()]
    schema = {"id": pl.String, "sha256": pl.String, "price": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row")


def create(path: Path, images: Mapping[str, Image], number: int) -> None:
    """Make the index of these images, in place of one that is there; ``number`` tells it apart."""
    import numpy as np
    import torch

    from irgen.index.index import Index

    vectors, codes = embed([content for content, _ in images.values()])
    codebooks = np.random.default_rng(0).normal(size=(LEVELS, SIZE, WIDTH)).astype(np.float32)
    Index.create(
        path,
        models_writer=lambda folder: (folder / "weights").write_bytes(b"some"),
        config={"number": number},
        items=describe(images),
        codebooks=torch.from_numpy(codebooks),
        codes=codes,
        embeddings=vectors,
        trained=torch.ones(len(images), dtype=torch.bool),
        replace=True,
    )


def put(index, images: Mapping[str, Image]) -> None:
    """Add or replace images of an open index."""
    vectors, codes = embed([content for content, _ in images.values()])
    index.upsert_encoded(vectors, list(images), describe(images).drop("id"), codes=codes)


def read(path: Path) -> dict[str, Image]:
    """Return the images of an index, whose embeddings and codes must be those of their contents."""
    import numpy as np

    from irgen.index.index import Index

    with Index.open(path) as index:
        rows = index.view.snapshot.alive_rows()
        table = index.view.take(rows.numpy())
        vectors, codes = embed(table["sha256"].to_list())
        stored = index.view.snapshot.gather(rows, "embeddings").numpy()
        assert np.array_equal(stored, vectors.astype(np.float16))
        assert np.array_equal(index.view.snapshot.gather(rows, "codes").numpy(), codes)
        return {row[0]: row[1:] for row in table.select("id", "sha256", "price").rows()}
