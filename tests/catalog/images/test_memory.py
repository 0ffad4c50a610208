"""Decoding takes a bounded memory, whatever the images and the number of threads."""

import io
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from irgen.catalog.images import codecs, jxl, memory
from irgen.catalog.images.decode import decode, decode_file
from irgen.catalog.images.memory import Budget
from irgen.errors import ImageError

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 1000  # MB
PEAK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from irgen.catalog.images.codecs import list_formats
from irgen.catalog.images.pixels import Decoding, decode_path, square

def read(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if name in line) // 1024

def shrink(path):
    decoding = Decoding(size=64, channels=3)
    return square(decode_path(Path(path), decoding), decoding)

list_formats()
before = read("VmRSS")
with ThreadPoolExecutor(8) as pool:
    list(pool.map(shrink, sys.argv[1:]))
print(read("VmHWM") - before)
"""


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_eight_threads_decode_large_images_in_less_than_a_gigabyte(tmp_path: Path) -> None:
    codecs.list_formats()
    corners = np.random.default_rng(0).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    image = Image.fromarray(corners).resize((5000, 5000), Image.Resampling.NEAREST)
    kinds: list[tuple[str, str, dict]] = [("RGBA", "PNG", {"compress_level": 1})]
    kinds += [("RGB", "JPEG", {"progressive": True}), ("RGB", "WEBP", {"method": 0})]
    kinds += [("RGB", "TIFF", {"compression": "tiff_lzw"}), ("RGB", "JXL", {"effort": 1})]
    for mode, kind, options in kinds:
        (tmp_path / kind).write_bytes(encoded(image.convert(mode), kind, **options))
    paths = [str(tmp_path / kind) for _ in range(3) for _, kind, _ in kinds]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < LIMIT


def test_a_photo_is_shrunk_as_it_is_decoded_and_keeps_its_size() -> None:
    photo = encoded(Image.new("RGB", (3000, 2000), "red"), "JPEG")
    decoded = decode_file(photo, 3, 200)
    assert decoded.image.size == (750, 500)  # a quarter: twice the side that is needed, or more
    assert (decoded.width, decoded.height) == (3000, 2000)
    assert decode(photo, 3).size == (3000, 2000)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16"])
def test_a_large_image_is_shrunk_in_tiles(mode: str) -> None:
    values = np.arange(4100, dtype=np.uint16)[None] % 256 * np.ones((4000, 1), np.uint16)
    grey = Image.fromarray(values.astype(np.uint8))
    image = Image.fromarray(values) if mode == "I;16" else grey.convert(mode)
    shown = np.asarray(decode(encoded(image, "PNG", compress_level=1), 1, 400)).astype(int)
    assert shown.shape == (800, 820)
    assert np.abs(shown[:, :50] - (np.arange(50) * 5 + 2)).max() <= 1


def test_an_image_that_takes_too_much_memory_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PIXELS", 100_000)
    for kind in ("PNG", "JXL"):
        codecs.list_formats()
        with pytest.raises(ImageError, match=r"300×200 pixels: decoding takes .* GB of memory"):
            decode(encoded(Image.new("RGB", (300, 200)), kind), 3)


@pytest.mark.parametrize(
    "size", [(8, 8), (1, 1), (3, 500), (640, 480), (320, 180), (123, 777), (9000, 3)]
)
@pytest.mark.parametrize("container", [False, True])
def test_the_size_of_jpeg_xl_is_known_before_it_is_decoded(
    size: tuple[int, int], container: bool
) -> None:
    codecs.list_formats()
    content = encoded(Image.new("RGB", size), "JXL", use_container=container)
    assert jxl.read_size(content) == size


def test_a_header_of_jpeg_xl_alone_is_damage() -> None:
    with pytest.raises(ImageError, match="damaged"):
        decode(jxl.CONTAINER, 3)


def test_who_waits_first_is_served_first_and_nobody_gets_more_than_there_is() -> None:
    budget, order, held = Budget(10), [], threading.Event()

    def take(name: str, size: int) -> None:
        with budget.reserve(size):
            order.append(name)

    with budget.reserve(5):
        large = threading.Thread(target=take, args=("large", 99))  # the whole budget
        large.start()
        assert not held.wait(0.1)
        small = threading.Thread(target=take, args=("small", 1))
        small.start()
        assert not held.wait(0.1) and order == []
    large.join(30), small.join(30)
    assert order == ["large", "small"]
