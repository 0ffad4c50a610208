"""Draw a catalogue of pictures of any size, to try things out with.

    python benchmarks/drawn_catalogue.py drawn --images 10000
    irgen init drawn

A picture shows one object: its category is a shape and a pattern, as in `striped star`. An object
has colours, proportions and a mark of its own; it is drawn several times, in other poses, before
other backgrounds, in other light, and sometimes half hidden. Pictures lie in a folder a category
below ``pictures``. ``pictures.csv`` beside it names the category (``label``) and the object of each
(``object``). If the first argument ends in ``.tar``, all is written into one archive.

Picture 123 is the same whatever the number of pictures; with another ``--seed`` all are others.
"""

import argparse
import csv
import io
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

Array = NDArray[np.float64]
Add = Callable[[str, bytes], None]  # writes a file by its path
COLUMNS = ("path", "label", "object")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Kind of catalogue: number of ``categories``, of ``views`` of an object, ``side`` of a picture
    in pixels, and ``seed``."""

    categories: int = 24
    views: int = 8
    side: int = 96
    seed: int = 0


def polygon(corners: int) -> Callable[[Array], Array]:
    """Return the radius of a regular polygon by angle."""
    part = 2 * np.pi / corners
    return lambda angle: np.cos(part / 2) / np.cos(angle % part - part / 2)


def star(points: int) -> Callable[[Array], Array]:
    """Return the radius of a star by angle."""
    return lambda angle: 0.4 + 0.6 * np.abs(1 - (angle * points / np.pi) % 2)


SHAPES: dict[str, Callable[[Array], Array]] = {  # radius by angle
    "disc": np.ones_like,
    "triangle": polygon(3),
    "square": polygon(4),
    "hexagon": polygon(6),
    "star": star(5),
    "sun": star(12),
    "flower": lambda angle: 0.75 + 0.25 * np.cos(6 * angle),
    "clover": lambda angle: 0.65 + 0.35 * np.cos(3 * angle),
    "gear": lambda angle: 0.85 + 0.15 * np.sign(np.cos(9 * angle)),
    "heart": lambda angle: 0.55 - 0.45 * np.sin(angle),
    "bow": lambda angle: np.abs(np.cos(angle)) ** 1.5 + 0.05,
    "cross": lambda angle: 0.35 / np.maximum(0.35, np.abs(np.sin(2 * angle))),
}
PATTERNS: dict[str, Callable[[Array, Array], Array]] = {  # -1 to 1 by position
    "plain": lambda u, v: np.ones_like(u),
    "striped": lambda u, v: np.sin(3 * u),
    "checked": lambda u, v: np.sin(3 * u) * np.sin(3 * v),
    "dotted": lambda u, v: np.cos(4 * u) + np.cos(4 * v) - 0.9,
    "ringed": lambda u, v: np.sin(4 * np.hypot(u, v)),
    "rayed": lambda u, v: np.sin(8 * np.arctan2(v, u)),
    "wavy": lambda u, v: np.sin(3 * u + 1.5 * np.sin(2 * v)),
    "netted": lambda u, v: 0.85 - np.maximum(np.abs(np.sin(2 * u)), np.abs(np.sin(2 * v))),
}
MOST = len(SHAPES) * len(PATTERNS)


@dataclass(frozen=True)
class Picture:
    """Subject of a picture, and its ``path``. ``item``: number of the category and of the object
    in it, as in `05-000012`."""

    category: str
    item: str
    path: str


def plan_picture(plan: Plan, number: int) -> Picture:
    """Return what picture ``number`` shows. Categories take turns."""
    order = np.random.default_rng(plan.seed).permutation(MOST)
    category, turn = int(order[number % plan.categories]), number // plan.categories
    shape, pattern = list(SHAPES)[category % len(SHAPES)], list(PATTERNS)[category // len(SHAPES)]
    label, item = f"{pattern} {shape}", f"{category:02d}-{turn // plan.views:06d}"
    name = f"{item}-{turn % plan.views:02d}.jpg"
    return Picture(label, item, f"pictures/{label}/{name}")


def draw(plan: Plan, number: int) -> bytes:
    """Draw picture ``number`` and return it as a JPEG."""
    planned, double = plan_picture(plan, number), 2 * plan.side
    pattern, shape = planned.category.split()
    category, item = map(int, planned.item.split("-"))
    own = np.random.default_rng([plan.seed, 1, category, item])  # the object's
    view = np.random.default_rng([plan.seed, 2, number])
    x, y = np.meshgrid(*[np.linspace(-1, 1, double)] * 2)
    u, v = _pose(x, y, view)
    inside = _shape(u, v, SHAPES[shape], own)  # (side, side)
    colours, mark = own.random((3, 3)), own.uniform(-0.35, 0.35, 2)
    coarse, turn = own.uniform(1.2, 2.6), own.uniform(0, np.pi)
    across, down = _turn(coarse * u, coarse * v, turn)
    picture = _mix(colours[0], colours[1], PATTERNS[pattern](across, down) > 0)
    picture = _mix(picture, colours[2], np.hypot(u - mark[0], v - mark[1]) < 0.16)
    picture = _mix(_background(double, view), picture, inside)
    picture = _hide(_light(picture, x, y, view), x, y, view)
    picture += view.normal(0, 0.02, picture.shape)
    image = Image.fromarray((255 * picture.clip(0, 1)).astype(np.uint8)).reduce(2)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=int(view.integers(75, 95)))
    return content.getvalue()


def _pose(x: Array, y: Array, view: np.random.Generator) -> tuple[Array, Array]:
    """Return where each pixel lies on the object: turned, moved, scaled and slanted."""
    size, slant = view.uniform(0.6, 0.9), view.uniform(-0.25, 0.25)
    x, y = x - view.uniform(-0.25, 0.25), y - view.uniform(-0.25, 0.25)
    u, v = _turn(x / size, y / size, view.uniform(-0.6, 0.6))
    return u + slant * v, v * view.uniform(1, 1.25)


def _turn(u: Array, v: Array, angle: float) -> tuple[Array, Array]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * u + sine * v, cosine * v - sine * u


def _shape(
    u: Array, v: Array, radius: Callable[[Array], Array], own: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the pixels of the object, some of which have a hole."""
    v, hole = v * own.uniform(1, 1.4), own.choice([0.0, 0.0, 0.0, 0.3])
    distance = np.hypot(u, v)
    return (distance < radius(np.arctan2(v, u) % (2 * np.pi))) & (distance >= hole)


def _mix(below: Array, above: Array, mask: NDArray[np.bool_]) -> Array:
    """Lay colours ``above`` over those ``below`` where ``mask`` (side, side) is set."""
    return np.where(mask[..., None], above, below)


def _background(side: int, view: np.random.Generator) -> Array:
    """Return clouds of some colours (side, side, 3)."""
    cells = view.integers(2, 9)
    colour, spread = view.random(3), view.uniform(0.05, 0.35)
    clouds = (colour + spread * view.normal(size=(cells, cells, 3))).clip(0, 1)
    small = Image.fromarray((255 * clouds).astype(np.uint8))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)) / 255


def _light(picture: Array, x: Array, y: Array, view: np.random.Generator) -> Array:
    """Brighten the picture towards one side, and tint it."""
    towards, strength = view.uniform(0, 2 * np.pi), view.uniform(0, 0.35)
    shade = 1 + strength * (np.cos(towards) * x + np.sin(towards) * y)
    return picture * (shade[..., None] * view.uniform(0.75, 1.15) * view.uniform(0.92, 1.08, 3))


def _hide(picture: Array, x: Array, y: Array, view: np.random.Generator) -> Array:
    """Lay a bar over a third of the pictures."""
    across, _ = _turn(x, y, view.uniform(0, np.pi))
    middle, width = view.uniform(-0.5, 0.5), view.uniform(0.05, 0.16)
    bar = (np.abs(across - middle) < width) & (view.random() < 1 / 3)
    return _mix(picture, view.random(3), bar)


def generate(plan: Plan, count: int, jobs: int) -> Iterator[tuple[Picture, bytes]]:
    """Yield ``count`` pictures, drawn by ``jobs`` processes."""
    with ProcessPoolExecutor(jobs) as pool:
        for start in range(0, count, 4096):  # map() would list all numbers at once
            numbers = range(start, min(count, start + 4096))
            contents = pool.map(partial(draw, plan), numbers, chunksize=64)
            pictures = (plan_picture(plan, number) for number in numbers)
            yield from zip(pictures, contents, strict=True)


@contextmanager
def open_target(target: Path) -> Iterator[Add]:
    """Yield a function that adds a file to a new folder, or to a new archive."""
    if target.suffix == ".tar":
        with tarfile.open(target, "x") as archive:

            def pack(path: str, content: bytes) -> None:
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

            yield pack
        return
    target.mkdir(parents=True)

    def write(path: str, content: bytes) -> None:
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    yield write


def main() -> None:
    """Draw a catalogue into a folder or an archive, which must not be there yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="new folder, or archive: .tar")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--categories", type=int, default=24, help=f"at most {MOST}")
    parser.add_argument("--views", type=int, default=8, help="pictures of an object")
    parser.add_argument("--side", type=int, default=96, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    if not 1 <= options.categories <= MOST:
        parser.error(f"--categories {options.categories}: allowed: 1 to {MOST}")
    if options.target.exists():
        parser.error(f"{options.target} is there already: delete it, or name another")
    plan = Plan(
        categories=options.categories, views=options.views, side=options.side, seed=options.seed
    )
    listed = io.StringIO()
    rows = csv.writer(listed)
    rows.writerow(COLUMNS)
    with open_target(options.target) as add:
        pictures = generate(plan, options.images, options.jobs)
        for picture, content in tqdm(pictures, "draw", options.images, unit="image", disable=None):
            add(picture.path, content)
            rows.writerow((picture.path, picture.category, picture.item))
        add("pictures.csv", listed.getvalue().encode())


if __name__ == "__main__":
    main()
