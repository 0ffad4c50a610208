"""Make a project with a large made-up index around the models of a real one, to be served.

    python benchmarks/made_up_index.py --like . --root /tmp/large --images 1000000

``--like``: a project with an index. ``--root``: the new project. It gets that index's models, the
same ``params.yaml`` and downloaded pictures, and ``--releases`` releases of ``--images`` images
each, of which the first is served. Each release lacks the first 1 % of the images of the one before
it and has as many new ones. ``queries/`` holds some pictures to search by. Prints seconds, bytes
and peak memory, and how the codes spread.

A made-up image is drawn like this:

- Codes: each number by its frequency in the real index after the number before it, smoothed by its
  frequency after any. So first codes are as skewed, and codes as clustered, as the real ones.
- Embedding: the vector that these codes stand for, plus a random direction. Its length is the
  distance of a random real image from its own reconstruction. Then the tokenizer encodes the
  embedding anew, so that codes fit embeddings.
- Metadata: that of a random real image with the same first code, so that pictures are found.
"""

import argparse
import os
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from speed.synthetic import spread
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import normalize

from irgen.catalog.pictures import Pictures
from irgen.compute.machine import keep_freed_memory
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.models import quantizer
from irgen.releases import release, store
from irgen.releases.own_index import source_folder
from irgen.releases.release import Release

CHUNK = 1 << 16  # images drawn with one seed, so that two releases share images
SMOOTHING = 4.0  # pseudo-counts of the frequency of a number after any other
NEW_SHARE = 0.01  # of a release's images
QUERIES = 50  # pictures to search by


@dataclass(frozen=True)
class Original:
    """Real ``index`` that made-up images resemble, with its ``codes`` (N, M) int64, ``distances``
    (N,) of embeddings from their reconstructions, and rows (N,) ``by_first_code``."""

    index: Index
    codes: Tensor
    distances: Tensor
    by_first_code: Tensor

    @classmethod
    def open(cls, root: Path) -> "Original":
        """Open the served index of a project, or that of its pipeline."""
        index = Index.open(source_folder(root))
        segment = index.view.snapshot.segments[0]
        codes = segment.codes.long()
        rebuilt = quantizer.decode(codes, index.folder.codebooks)[:, -1]
        distances = (rebuilt - segment.embeddings.float()).norm(dim=1)
        return cls(index, codes, distances, codes[:, 0].argsort(stable=True))

    def draw(self, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return embeddings (CHUNK, D) float16, codes (CHUNK, M) and the real rows (CHUNK,) whose
        metadata the images of a chunk have."""
        generator = torch.Generator().manual_seed(chunk)
        codebooks, size = self.index.folder.codebooks, self.index.folder.codebooks.shape[1]
        drawn = draw_codes(self.codes, size, CHUNK, generator)
        vectors = quantizer.decode(drawn, codebooks)[:, -1]
        directions = normalize(torch.randn(vectors.shape, generator=generator), dim=1)
        lengths = self.distances[torch.randint(len(self.codes), (CHUNK,), generator=generator)]
        embeddings = normalize(vectors + lengths[:, None] * directions, dim=1).half()
        codes = quantizer.encode(embeddings.float(), codebooks)
        return (
            embeddings,
            codes.to(torch.int16),
            self._draw_rows(codes[:, 0].contiguous(), generator),
        )

    def _draw_rows(self, first_codes: Tensor, generator: torch.Generator) -> Tensor:
        """Return for each first code (n,) a random real row that has it."""
        ordered = self.codes[self.by_first_code, 0].contiguous()
        start = torch.searchsorted(ordered, first_codes)
        end = torch.searchsorted(ordered, first_codes, right=True)
        shares = torch.rand(len(first_codes), generator=generator)
        positions = start + (shares * (end - start)).long()
        return self.by_first_code[positions.clamp_max(len(ordered) - 1)]


def draw_codes(real: Tensor, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Return codes (count, M) whose numbers follow each other as in ``real`` (N, M), all below
    ``size``."""
    shares = torch.bincount(real[:, 0], minlength=size).double()
    columns = [torch.multinomial(shares, count, replacement=True, generator=generator)]
    for before, own in zip(real.T, real.T[1:], strict=False):
        pairs = torch.bincount(before * size + own, minlength=size**2).view(size, size).double()
        pairs += SMOOTHING * pairs.sum(0) / pairs.sum()
        cumulative = (pairs / pairs.sum(1, keepdim=True)).cumsum(1)[columns[-1]]  # (count, L)
        points = torch.rand(count, 1, generator=generator, dtype=torch.float64)
        columns.append(torch.searchsorted(cumulative, points).flatten().clamp_max(size - 1))
    return torch.stack(columns, dim=1)


def write_index(path: Path, original: Original, first: int, count: int) -> Tensor:
    """Create an index of the made-up images ``first`` … ``first + count − 1``; return codes."""
    folder = original.index.folder
    codes = torch.empty(count, original.codes.shape[1], dtype=torch.int16)
    embeddings = torch.empty(count, folder.codebooks.shape[2], dtype=torch.float16)
    rows = torch.empty(count, dtype=torch.int64)
    for chunk in range(first // CHUNK, -(-(first + count) // CHUNK)):
        start = chunk * CHUNK - first  # of the chunk, among the images of this index
        target = slice(max(0, start), min(count, start + CHUNK))
        source = slice(target.start - start, target.stop - start)
        for column, drawn in zip((embeddings, codes, rows), original.draw(chunk), strict=True):
            column[target] = drawn[source]
    numbers = pl.int_range(first, first + count, eager=True).cast(pl.String).str.zfill(9)
    items = original.index.view.table[rows.numpy()].with_columns(id="made-up/" + numbers)
    Index.create(
        path,
        models_writer=lambda new: shutil.copytree(folder.check_models(), new, dirs_exist_ok=True),
        config=folder.config,
        items=items,
        codebooks=folder.codebooks,
        codes=codes,
        embeddings=embeddings,
        trained=torch.ones(count, dtype=torch.bool),
    )
    return codes


def add_release(root: Path, original: Original, version: int, count: int) -> Tensor:
    """Add a release of made-up images to the new project; return their codes."""
    releases, index = store.path_in(root), root / "made-up"
    codes = write_index(index, original, int((version - 1) * NEW_SHARE * count), count)
    files = release.list_files(index)
    new = Release(
        version=version,
        bundle=release.digest_files(files),
        files=files,
        state="released" if version == 1 else "candidate",
        created=time.time_ns() // 1_000_000,
        previous=version - 1 or None,
    )

    def link(folder: Path) -> None:
        shutil.copytree(index, folder, copy_function=os.link, dirs_exist_ok=True)

    store.add_release(releases, new, link)
    shutil.rmtree(index)
    if version == 1:
        store.set_champion(releases, new)
    return codes


def make_project(like: Path, root: Path, items: pl.DataFrame) -> None:
    """Create the new project: parameters, a link to the pictures, and the pictures of some of the
    real ``items`` as queries. Raises FileExistsError if it has queries already."""
    (root / "queries").mkdir(parents=True)
    shutil.copyfile(like / "params.yaml", root / "params.yaml")
    originals = Pictures(like)
    for number, item in enumerate(items.sample(min(QUERIES, len(items)), seed=0).rows(named=True)):
        if (content := originals.read(item)) is not None:
            (root / "queries" / f"{number:03d}").write_bytes(content)
    pictures = Workspace.at(root).stage("download")
    pictures.parent.mkdir()
    pictures.symlink_to(Workspace.at(like).stage("download").resolve())


def describe_codes(codes: Tensor, size: int) -> list[float]:
    """Return by level the share of codes that are used (perplexity / L), the share of distinct
    code sequences, the mean images that share an image's, and the most."""
    values = spread(codes, size)
    shares = [values[f"share/level_{level}"] for level in range(1, codes.shape[1] + 1)]
    return [*shares, values["distinct"], values["per_code"], values["largest_bucket"]]


def main() -> None:
    """Make the project and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--like", type=Path, default=Path())
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--releases", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    original = Original.open(arguments.like)
    size = original.index.folder.codebooks.shape[1]
    make_project(arguments.like, arguments.root, original.index.view.table)
    spreads, rows = [["real", len(original.codes), *describe_codes(original.codes, size)]], []
    for version in range(1, arguments.releases + 1):
        started = time.perf_counter()
        codes = add_release(arguments.root, original, version, arguments.images)
        seconds = time.perf_counter() - started
        written = store.find_release(store.path_in(arguments.root), version).size
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append([version, len(codes), seconds, written / 2**30, peak])
        if version == 1:
            spreads.append(["made up", len(codes), *describe_codes(codes, size)])
    print(tabulate(rows, ("release", "images", "seconds", "GiB", "peak GiB"), floatfmt=".2f"))
    levels = [f"level {level}" for level in range(1, original.codes.shape[1] + 1)]
    headers = ("codes", "images", *levels, "distinct", "per code", "most")
    print(tabulate(spreads, headers, floatfmt=".2f"))


if __name__ == "__main__":
    main()
