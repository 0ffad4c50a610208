"""The built-in digits as a folder of image files, for trying a folder as the source:

python examples/digits.py photos           all 1,797 of them: photos/3/0045.png and so on
python examples/digits.py more --moved 40  forty that nobody has seen: other digits' copies, moved
"""

import argparse
import io
from pathlib import Path

from PIL import Image

from irgen.catalog.sources.arrays import list_digits


def main() -> None:
    """Writes the files, one folder a digit; what is there already is left as it is."""
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
    """The PNG, its picture one pixel further right."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.transform(image.size, Image.Transform.AFFINE, (1, 0, -1, 0, 1, 0)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
