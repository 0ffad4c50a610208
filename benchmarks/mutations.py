"""Decode damaged image files, and report those that end the process, hang or take much memory.

    python benchmarks/mutations.py --files 10000

Small files of every kind that is read are changed at random (bytes flipped, cut, put in, numbers
made extreme, parts of other files); the same number gives the same file. A process decodes them as
the catalogue does. If it dies or takes longer than a minute for a file, a new process starts with
the next file. Prints a line for each such file, the counts of images read and rejected, the slowest
file and the peak of the memory; writes them to ``benchmarks/results/mutations.json``.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import numpy as np
from PIL import Image, PngImagePlugin

from irgen.catalog.fingerprints import fingerprint
from irgen.catalog.images.codecs import list_formats
from irgen.catalog.images.decode import decode_file
from irgen.errors import ImageError
from irgen.files.records import write_json

RESULTS = Path(__file__).parent / "results" / "mutations.json"
PATIENCE = 60  # seconds for one file
EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\1\0")


def make_files() -> list[bytes]:
    """Return small image files of every kind and several modes."""
    list_formats()
    corners = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(corners).resize((60, 40), Image.Resampling.BICUBIC)
    more = {"save_all": True}
    text, exif = PngImagePlugin.PngInfo(), Image.Exif()
    text.add_text("comment", "word " * 99, zip=True)
    exif[0x0112] = 6
    plain = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "HEIF", "JXL")
    kinds: list[tuple[Image.Image, str, dict]] = [(image, kind, {}) for kind in plain]
    kinds += [(image, "JPEG2000", {}), (image, "JPEG2000", {"no_jp2": True}), (image, "ICO", {})]
    kinds += [(image, kind, more) for kind in ("MPO", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "HEIF")]
    kinds += [(image, kind, {"exif": exif.tobytes()}) for kind in ("JPEG", "PNG", "WEBP", "HEIF")]
    kinds += [(image.convert("RGBA"), kind, {}) for kind in ("PNG", "BMP", "WEBP", "AVIF", "JXL")]
    kinds += [(image.convert("P"), kind, {}) for kind in ("PNG", "GIF", "BMP", "TIFF")]
    kinds += [(image.convert(mode), "TIFF", {}) for mode in ("1", "CMYK", "LAB", "F", "I")]
    packed = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
    kinds += [(image, "TIFF", {"compression": name}) for name in packed]
    kinds += [(image.convert("1"), "TIFF", {"compression": "group4"})]
    kinds += [(image, "JPEG", {"progressive": True}), (image.convert("CMYK"), "JPEG", {})]
    kinds += [(image, "PNG", {"pnginfo": text, "icc_profile": bytes(400)})]
    files = []
    for picture, kind, options in kinds:
        file, picture = io.BytesIO(), picture.copy()  # saving changes an image
        if options == more:
            options = {**more, "append_images": [picture.transpose(Image.Transpose.ROTATE_180)]}
        picture.save(file, kind, **options)
        files.append(file.getvalue())
    return files


def mutate(files: list[bytes], number: int) -> bytes:
    """Return a file, changed in one or two places."""
    generator = np.random.default_rng(number)
    content = bytearray(files[number % len(files)])
    for _ in range(generator.integers(1, 3)):
        position = int(len(content) ** generator.uniform(0.3, 1))  # rather in the header
        length = int(generator.integers(1, 64))
        match generator.integers(0, 9):
            case 0 | 1 | 2 | 3:
                content[position : position + 1] = generator.bytes(1)
            case 4:
                content[position : position + 4] = EXTREMES[generator.integers(0, len(EXTREMES))]
            case 5:
                del content[position : position + length]
            case 6:
                content[position:position] = generator.bytes(length)
            case 7:
                other = files[generator.integers(0, len(files))]
                content[position : position + length] = other[position : position + length]
            case 8:
                del content[max(position, len(content) // 2) :]
    return bytes(content)


def decode_all(start: int, stop: int) -> None:
    """Decode the mutated files of these numbers, and print a line for each."""
    files = make_files()
    for number in range(start, stop):
        content, started = mutate(files, number), time.perf_counter()
        try:
            fingerprint(decode_file(content, 3, 64).image)
            result = "read"
        except ImageError:
            result = "rejected"
        except (Exception, MemoryError) as error:
            result = f"{type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps([number, result, time.perf_counter() - started, peak]), flush=True)


def watch(start: int, stop: int, lines: "Queue[str]") -> subprocess.Popen:
    """Start a process that decodes, whose lines go to the queue."""
    command = [sys.executable, __file__, "--numbers", str(start), str(stop)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )

    def pass_on() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    Thread(target=pass_on, daemon=True).start()
    return process


def run(files: int) -> dict:
    """Decode mutated files from number 0, in a new process after one that failed; return the
    results."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    number, slowest, peak = 0, (0.0, -1), 0
    while number < files:
        lines: Queue[str] = Queue()
        process = watch(number, files, lines)
        try:
            while line := lines.get(timeout=PATIENCE):
                number, result, seconds, memory = json.loads(line)
                counts[result if result in ("read", "rejected") else "error"] += 1
                if result not in ("read", "rejected"):
                    failures.append(f"file {number}: {result}")
                slowest, peak = max(slowest, (seconds, number)), max(peak, memory)
                number += 1
            if number < files:
                failures.append(f"file {number}: the process ended with {process.wait()}")
                number += 1
        except Empty:
            failures.append(f"file {number}: longer than {PATIENCE} s")
            number += 1
        finally:
            process.kill()
            process.wait()
    print(*failures, sep="\n")
    return {
        "files": files,
        **counts,
        "failures": failures,
        "slowest_seconds": round(slowest[0], 2),
        "slowest_file": slowest[1],
        "peak_mb": peak,
    }


def main() -> None:
    """Decode the files, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--numbers", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.numbers:
        decode_all(*options.numbers)
        return
    results = run(options.files)
    write_json(options.results, results)
    print(json.dumps(results, indent=1))
    sys.exit(bool(results["failures"]))


if __name__ == "__main__":
    main()
