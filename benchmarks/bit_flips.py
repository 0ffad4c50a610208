"""Flip bits in each store of a project, and count in a table what becomes of them.

    python benchmarks/bit_flips.py PROJECT --flips 200

In PROJECT the pipeline has run; a copy of it is damaged, one random bit at a time. After each flip
the project's own code reads the store. The outcome is *noticed* (an error that the user can mend,
or the file is made again), *harmless* (the content is the same), *served* (the content differs), or
*unclear* (an error of another kind). Exit status 1 if a bit is served or unclear.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from tabulate import tabulate

from flows.cache_check import is_damaged
from irgen.catalog import manifest
from irgen.catalog.check import check_images
from irgen.catalog.shards import Images
from irgen.catalog.table import NAMES, read_table
from irgen.checkpoints import tensor_file
from irgen.checkpoints.identifiers import load_codes
from irgen.checkpoints.tokenizer import load_tokenizer
from irgen.checkpoints.weights import create_encoder
from irgen.compute.machine import Machine
from irgen.encoding.cache import ArrayStore
from irgen.encoding.encode import Encoding
from irgen.encoding.views import encode_views
from irgen.errors import ArtifactError, IrgenError
from irgen.files.digests import digest
from irgen.files.records import read_json, write_json
from irgen.files.sealed import read_array, read_parquet
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.params import Augment, Compute, Encoder
from irgen.releases import release

BAD = ("served", "unclear")
OUTCOMES = ("noticed", "harmless", *BAD)
VIEWED = 12  # images of which views are cached
ENCODER = Encoder(
    name="resnet10t",
    weights="none",
    image_size=32,
    channels=1,
    options={"channels": [8, 8, 16, 24], "stem_width": 8},
)
CPU = Machine(device=torch.device("cpu"), autocast=None)


@dataclass(frozen=True)
class Store:
    """Name some files of a project; ``read`` returns their content."""

    name: str
    files: list[Path]
    read: Callable[[], Any]


def list_stores(root: Path) -> list[Store]:
    """Return the stores that a project has."""
    workspace = Workspace.at(root)
    data, caches, download = workspace.data, workspace.cache, workspace.stage("download")
    images = Images(download)
    sha256s = manifest.images(manifest.read(download))["sha256"].unique().sort().to_list()
    models = {name: data / name / f"{name}.safetensors" for name in ("tokenizer", "retriever")}
    arrays = sorted(data.glob("features/*/*.npy"))
    tables = [data / "catalog" / f"{name}.parquet" for name in NAMES]
    others = [data / "catalog" / f"{name}.parquet" for name in ("rejected", "leaks")]
    others += sorted(data.glob("pairs/*.parquet")) + sorted(data.glob("evaluate/**/*.parquet"))
    texts = [data / "catalog" / "protocol.json", data / "drift" / "verdict.json"]
    codes = sorted(data.glob("identifiers/*"))
    stores = [
        Store("image shards", _below(download / "images"), lambda: list(map(images.read, sha256s))),
        Store("manifest", [download / manifest.NAME], lambda: _read_manifest(download)),
        Store("catalogue tables", tables, lambda: [read_table(path) for path in tables]),
        Store("other tables", others, lambda: [read_parquet(path) for path in others]),
        Store("records", texts, lambda: [read_json(path) for path in texts]),
        Store("features", arrays, lambda: [read_array(path) for path in arrays]),
        Store(
            "codes, embeddings",
            [path for folder in codes for path in _below(folder)],
            lambda: [_plain(vars(load_codes(folder))) for folder in codes],
        ),
        Store("tokenizer", [models["tokenizer"]], lambda: _load_tokenizer(models["tokenizer"])),
        Store("retriever", [models["retriever"]], lambda: tensor_file.load(models["retriever"])),
        Store("trie", _below(data / "trie"), lambda: tensor_file.load(*_below(data / "trie"))),
        *_list_index(root, "index", data / "index"),
        *(
            Store(f"cache: {name}", _below(folder), partial(_read_arrays, folder))
            for name in ("encodings", "query_features")
            for folder in sorted((caches / name).glob("*"))[:1]
        ),
        Store(
            "cache: answers",
            _below(caches / "answers"),
            lambda: [read_parquet(path) for path in _below(caches / "answers")],
        ),
        Store(
            "cache: checked images",
            _below(caches / "catalog"),
            lambda: check_images(images, sha256s, caches / "catalog", 1).sort("sha256"),
        ),
        _make_views(root, images, sha256s[:VIEWED]),
    ]
    objects = root / ".dvc" / "cache" / "files" / "md5"
    stores.append(Store("DVC's cache", _below(objects), lambda: _read_objects(objects)))
    champion = root / "releases" / "champion"
    if champion.exists():
        folder = champion.resolve()
        record = Store("release: record", [folder / release.RECORD], lambda: release.read(folder))
        stores += [record, *_list_index(root, "release", folder)]
    return [store for store in stores if any(path.stat().st_size for path in store.files)]


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read_manifest(folder: Path) -> Any:
    return manifest.read(folder), manifest.read_past(folder), manifest.read_revision(folder)


def _load_tokenizer(path: Path) -> Any:
    model, labels = load_tokenizer(path)
    return model.state_dict(), labels


def _list_index(root: Path, name: str, folder: Path) -> list[Store]:
    """Return the stores of an index: the files that never change, and the log of changes in two
    copies: one that was closed, and one as a killed writer leaves it."""
    fixed = [path for path in _below(folder) if path.name not in ("lock", release.RECORD)]
    fixed = [path for path in fixed if not path.name.startswith(("changes.sqlite", "reported"))]
    closed, killed = root / f"closed-{name}", root / f"killed-{name}"
    shutil.copytree(folder, closed)
    with Index.open(closed, writable=True) as index:
        index.remove(index.view.all_ids()[:5])
        vectors = torch.nn.functional.normalize(torch.randn(40, index.info()["width"]), dim=1)
        index.add_encoded(vectors, [f"new {number}" for number in range(40)])
        shutil.copytree(closed, killed)
    changes = [closed / "changes.sqlite", closed / "reported"]
    return [
        Store(f"{name}: models, base", fixed, partial(_read_index, folder, models=True)),
        Store(f"{name}: changes, main", changes, partial(_read_index, closed)),
        Store(
            f"{name}: changes, wal", [killed / "changes.sqlite-wal"], partial(_read_index, killed)
        ),
    ]


def _read_index(folder: Path, models: bool = False) -> Any:
    """Return the content of an index, the answers to some of its images, and its models."""
    with Index.open(folder) as index:
        view = index.view
        rows = view.snapshot.alive_rows()
        hits = index.search_ids(view.all_ids()[:3], 5)
        content = [view.take(rows.numpy()), view.snapshot.gather(rows, "codes"), vars(hits)]
        content += [view.snapshot.gather(rows, "trained"), index.info()["config"]]
        if models:
            loaded = index.models
            content += [loaded.tokenizer.state_dict(), loaded.retriever.state_dict()]
            content += [loaded.labels, index.calibration]
        return _plain(content)


def _read_arrays(folder: Path) -> Any:
    """Return all arrays of a store of the cache, by hash; those of a damaged file are missing."""
    store = ArrayStore(folder)
    keys = [row.tobytes().hex() for path in _below(folder) for row in _list_keys(path)]
    if store.missing(keys):
        raise ArtifactError("made again")
    return keys, store.get(keys)


@cache
def _list_keys(path: Path) -> np.ndarray:
    """Return the hashes in a file of the cache, as they were before it was damaged."""
    return load_file(path)["keys"]


def _read_objects(folder: Path) -> Any:
    """Return the objects of DVC's cache. Raise ArtifactError for one that is damaged, which
    ``flows.stage`` and ``python -m flows.cache_check`` delete."""
    if any(map(is_damaged, _below(folder))):
        raise ArtifactError("deleted, and made again")
    return [path.read_bytes() for path in _below(folder)]


def _make_views(root: Path, images: Images, sha256s: list[str]) -> Store:
    """Cache views of some images through a small encoder."""
    settings = Compute(device="cpu", batch_size=4, threads=1)
    encoding = Encoding(
        images=images, machine=CPU, encoder_machine=CPU, settings=settings, cache=root / "viewed"
    )
    encoder, changes = create_encoder(ENCODER, 0).eval(), Augment(views=2)

    def read() -> Any:
        views = encode_views(encoder, sha256s, changes, 0, encoding)
        return np.array(views.summaries), np.array(views.tokens)

    read()
    files = [path for path in _below(root / "viewed" / "views") if path.suffix == ".npy"]
    return Store("cache: views", files, read)


def _plain(value: Any) -> Any:
    """Return a value that compares by content: arrays and tables as bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.cpu().numpy().tobytes()
    if isinstance(value, np.ndarray) and value.dtype == object:
        return value.tolist()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "write_csv"):
        return str(value.schema), [repr(row) for row in value.rows()]
    return value if isinstance(value, bytes | str | int | float | None) else repr(value)


def flip_bits(store: Store, flips: int, seed: int) -> Counter[str]:
    """Flip random bits of a store, one at a time, and count the outcomes."""
    generator, outcomes = random.Random(f"{seed} {store.name}"), Counter[str]()
    contents = {path: path.read_bytes() for path in store.files}
    sizes = [len(content) for content in contents.values()]
    expected = digest(repr(_plain(store.read())))
    for _ in range(flips):
        (path,) = generator.choices(store.files, sizes)
        content = bytearray(contents[path])
        position, bit = generator.randrange(len(content)), generator.randrange(8)
        content[position] ^= 1 << bit
        path.chmod(0o644)
        path.write_bytes(content)
        outcome = _find_outcome(store, expected)
        outcomes[outcome] += 1
        if outcome in BAD:
            where = f"bit {bit} of byte {position} of {path}"
            print(f"{store.name}: {outcome}: {where}", file=sys.stderr)
        _restore(contents)
    return outcomes


def _restore(contents: dict[Path, bytes]) -> None:
    """Write the files back that were changed or deleted."""
    for path, content in contents.items():
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _find_outcome(store: Store, expected: str) -> str:
    """Read a store, and return the outcome, given the digest of its whole content."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            is_same = digest(repr(_plain(store.read()))) == expected
        except IrgenError:
            return "noticed"
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return "unclear"
    if not is_same:
        return "served"
    return "noticed" if any("damaged" in str(note.message) for note in caught) else "harmless"


def main() -> int:
    """Damage a copy of the project and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="folder for bit-flips.md and bit-flips.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        root.mkdir()
        for name in ("data", ".cache", ".dvc", "releases"):
            if (arguments.project / name).exists():
                shutil.copytree(arguments.project / name, root / name, symlinks=True)
        for store in list_stores(root):
            started = time.perf_counter()
            outcomes = flip_bits(store, arguments.flips, arguments.seed)
            size = sum(path.stat().st_size for path in store.files)
            row = {"store": store.name, "bytes": size} | {name: outcomes[name] for name in OUTCOMES}
            print(f"{row}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
            rows.append(row)
    table = tabulate(rows, "keys", "github", intfmt=",")
    print(table)
    if arguments.results:
        (arguments.results / "bit-flips.md").write_text(f"{table}\n")
        write_json(arguments.results / "bit-flips.json", rows)
    return int(any(row[name] for row in rows for name in BAD))


if __name__ == "__main__":
    sys.exit(main())
