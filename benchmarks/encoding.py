"""Measure how much of an encoder's speed is left when images come from files.

    python benchmarks/encoding.py --precision auto --rounds 5
    python benchmarks/encoding.py --engine ray --batch 256 --images 8192 --rounds 2

Compares, in turns and in one process, the forward pass on batches in memory with encoding JPEG
files (photos of 227 to 400 pixels, and of 12 megapixels), and a training of the encoder on an array
of all images with one on images decoded as needed, all of them or none kept in memory.

With ``--engine ray`` it compares encoding in this process with encoding on a Ray cluster of this
machine's cores. The cluster starts before the clock; its workers load the encoder in each round.

The photos are parts of those that scikit-learn ships. Rates are per second of the clock; *of
processor time* compares the seconds of all cores, which other processes disturb less. On a
processor alone, decoding takes its share: no more than *at best* can be reached.
"""

import argparse
import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from irgen.catalog.images.pixels import decode_square
from irgen.catalog.shards import Images
from irgen.catalog.sources.listing import Source
from irgen.catalog.sources.local import list_folder
from irgen.catalog.sync import sync
from irgen.checkpoints.weights import create_encoder
from irgen.compute.cluster import connect
from irgen.compute.machine import prepare
from irgen.encoding.batches import Pixels
from irgen.encoding.encode import Encoding, decode_pixels, encode_summaries, open_pixels
from irgen.models.encoder import ImageEncoder
from irgen.params import Augment, Compute, Encoder
from irgen.training.run import draw_batches

LARGE = (4032, 3024)  # 12 megapixels


@dataclass
class Times:
    """Seconds of the clock and of the processor that each round took."""

    clock: list[float]
    processor: list[float]

    def measure(self, work: Callable[[], object]) -> None:
        """Add a round."""
        clock, processor = time.perf_counter(), time.process_time()
        work()
        self.clock.append(time.perf_counter() - clock)
        self.processor.append(time.process_time() - processor)


def race(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Run each way in turns, after one round that does not count."""
    times = {name: Times([], []) for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            (times[name] if number else Times([], [])).measure(work)
    return times


def compare(times: dict[str, Times], count: int, what: str) -> list[str]:
    """Return a line for each way: images a second, and its ratio to the first way's."""
    first, *_ = times.values()
    clock, processor = statistics.median(first.clock), statistics.median(first.processor)
    return [
        f"{what}, {name}: {count / statistics.median(way.clock):,.1f} images/s, "
        f"ratio {clock / statistics.median(way.clock):.2f}, "
        f"of processor time {processor / statistics.median(way.processor):.2f}"
        for name, way in times.items()
    ]


def write_photos(folder: Path, count: int, large: bool) -> None:
    """Write JPEG files, each of another part of a photo: of 227 to 400 pixels, or 12 megapixels."""
    generator, photos = np.random.default_rng(0), load_sample_images().images
    folder.mkdir(parents=True)
    for number in range(count):
        photo = photos[number % len(photos)]
        height, width = generator.integers(227, 401, size=2)
        top = generator.integers(0, photo.shape[0] - height + 1)
        left = generator.integers(0, photo.shape[1] - width + 1)
        image = Image.fromarray(photo[top : top + height, left : left + width])
        if large:
            grain = generator.integers(-4, 5, (LARGE[1], LARGE[0], 1))
            pixels = np.asarray(image.resize(LARGE, Image.Resampling.BICUBIC)) + grain
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=88)
        (folder / f"{number:05d}.jpg").write_bytes(content.getvalue())


def open_photos(folder: Path, settings: Compute) -> tuple[Encoding, list[str]]:
    """Return the photos of a folder, packed as the download stage packs them, and their hashes."""
    root = folder.parents[1]
    source = Source(name="photos", stamp=None, load=lambda: list_folder(folder.parent))
    sync(source, root / "download")
    images = Images(root / "download")
    machine = prepare(settings)
    encoding = Encoding(
        images=images, machine=machine, encoder_machine=machine, settings=settings, cache=root
    )
    contents = (path.read_bytes() for path in sorted(folder.iterdir()))
    return encoding, [hashlib.sha256(content).hexdigest() for content in contents]


def encode_anew(encoder: ImageEncoder, encoding: Encoding, sha256s: list[str]) -> None:
    """Encode images into an empty cache."""
    with tempfile.TemporaryDirectory(dir=encoding.cache) as folder:
        encode_summaries(encoder, sha256s, replace(encoding, cache=Path(folder)))


def race_engines(
    encoder: ImageEncoder, encoding: Encoding, sha256s: list[str], rounds: int
) -> Iterator[str]:
    """Yield the rates of encoding files in this process and on a Ray cluster: of all files, and of
    all but the first batch, which waits for workers to start."""
    on_ray = replace(encoding, settings=replace(encoding.settings, engine="ray"))
    batch = encoding.settings.batch_size
    ways = {
        name: partial(encode_anew, encoder, way, sha256s[:count])
        for name, way, count in (
            ("local", encoding, None),
            ("ray", on_ray, None),
            ("one batch", on_ray, batch),
        )
    }
    with connect(on_ray.settings):
        times = race(ways, rounds)
    seconds = {name: statistics.median(way.clock) for name, way in times.items()}
    local = len(sha256s) / seconds["local"]
    rate = len(sha256s) / seconds["ray"]
    later = (len(sha256s) - batch) / (seconds["ray"] - seconds["one batch"])
    yield f"encoding files, local: {local:,.1f} images/s"
    yield f"encoding files, ray: {rate:,.1f} images/s, ratio {rate / local:.2f}"
    yield (
        f"encoding files, ray: {seconds['one batch']:.1f} s until the first batch, then "
        f"{later:,.1f} images/s, ratio {later / local:.2f}"
    )


def race_encoding(
    encoder: ImageEncoder, encoding: Encoding, sha256s: list[str], rounds: int, what: str
) -> Iterator[str]:
    """Yield the rates of the forward pass alone and of encoding files, and the best possible."""
    batches = torch.from_numpy(decode_pixels(encoder, sha256s, encoding))
    batches = batches.split(encoding.settings.batch_size)
    machine = encoding.machine

    @torch.inference_mode()
    def forward() -> None:
        for batch in batches:
            with machine.precision():
                encoder(batch.to(machine.device))[0].float().cpu()

    def decode() -> None:
        for sha256 in sha256s:
            decode_square(encoding.images, sha256, encoder.decoding)

    from_files = partial(encode_anew, encoder, encoding, sha256s)
    times = race({"forward pass alone": forward, "from files": from_files}, rounds)
    yield from compare(times, len(sha256s), what)
    decoding = race({"decode": decode}, 1)["decode"].processor[0]
    forwarding = statistics.median(times["forward pass alone"].processor)
    yield (
        f"{what}: a core decodes an image in {1000 * decoding / len(sha256s):.1f} ms; on the "
        f"processor alone at best {forwarding / (forwarding + decoding):.2f}"
    )


def race_training(
    encoder: ImageEncoder, encoding: Encoding, sha256s: list[str], rounds: int
) -> Iterator[str]:
    """Yield the rates of gradient steps on an array and on images decoded as needed."""
    size, machine = encoding.settings.batch_size, encoding.machine
    none = replace(encoding, settings=replace(encoding.settings, pixels_gigabytes=0.0))
    sources = {
        "array": decode_pixels(encoder, sha256s, encoding),
        "all kept": open_pixels(encoder, sha256s, encoding),
        "none kept": open_pixels(encoder, sha256s, none),
    }

    def train(images: Pixels) -> None:
        generator, steps = torch.Generator().manual_seed(0), range(len(images) // size)
        for rows in images.prefetch(draw_batches(steps, len(images), size, 0)):
            with machine.precision():
                summary = encoder(images.training(rows, generator)[0].to(machine.device))[0]
            summary.float().square().mean().backward()
            encoder.zero_grad()

    ways = {
        name: lambda pixels=pixels: train(Pixels(pixels, encoder.decoding.size, Augment()))
        for name, pixels in sources.items()
    }
    yield from compare(race(ways, rounds), len(sha256s) // size * size, "gradient steps")


def main() -> None:
    """Print the rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--crop", type=float, default=0.875)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "auto"])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", default="local", choices=["local", "ray"])
    options = parser.parse_args()
    settings = Compute(precision=options.precision, batch_size=options.batch)
    config = Encoder(name=options.name, weights="none", image_size=options.size, crop=options.crop)
    encoder = create_encoder(config, 0).to(prepare(settings).device).eval()
    small, large = options.images, max(options.batch, options.images // 8)
    with tempfile.TemporaryDirectory(prefix="irgen-encoding-") as folder:
        for kind, count in (("small", small), ("large", large)):
            photos = Path(folder) / kind / "source" / "photos"
            write_photos(photos, count, kind == "large")
            encoding, sha256s = open_photos(photos, settings)
            if options.engine == "ray":
                for line in race_engines(encoder, encoding, sha256s, options.rounds):
                    print(line, flush=True)
                return
            what = "photos of 227 to 400 px" if kind == "small" else "photos of 12 megapixels"
            for line in race_encoding(encoder, encoding, sha256s, options.rounds, what):
                print(line, flush=True)
            if kind == "small":
                for line in race_training(encoder, encoding, sha256s, options.rounds):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
