"""Write the built-in digits as image files, to try a folder as the source:

python examples/digits.py photos           all 1,797: photos/3/0045.png and so on
python examples/digits.py more --moved 40  forty new ones: copies moved by one pixel
"""

import argparse
import io
from pathlib import Path

from PIL import Image

from irgen.catalog.sources.arrays import list_digits


def main() -> None:
    """Write the files, one folder a digit; those that exist already stay as they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--moved", type=int, metavar="N", help="N copies, moved by a pixel, instead"
    )
    options = parser.parse_args()
    count = 0
    for entry in list_digits().entries:
        path = options.folder / entry.key
        if options.moved is not None:
            path = path.with_stem(f"{path.stem}-moved")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(entry.read() if options.moved is None else moved(entry.read()))
        count += 1
        if count == options.moved:
            break
    print(f"{count:,} images in {options.folder}")


def moved(content: bytes) -> bytes:
    """Return the PNG with its picture moved right by one pixel."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.transform(image.size, Image.Transform.AFFINE, (1, 0, -1, 0, 1, 0)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
