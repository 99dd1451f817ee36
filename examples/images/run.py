"""Make thumbnails of a few hundred pictures: by one process, then by four workers, one of which is killed on the way.

    python examples/images/run.py [--files 300] [--side 1200] [--workers 4] [--out FOLDER]

It needs Pillow: `pip install 'cluster-rehearsal[examples]'`. It says how much faster the cluster was, and checks that
every result and every picture is right, and that nothing was run again whose result had arrived.
`examples/images/images.yaml` rehearses the same job: give it the service times that are printed.
"""

import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.images.images import look, sheet
from examples.job import Job, at_least, compare, parser_of, parts

SIDE = 1200
"""Pixels of each picture, about."""
SHAPES = 40


def draw_pictures(folder: Path, files: int, side: int) -> list[Path]:
    """The same ones each time: coloured ellipses and lines on a gradient."""
    rng = random.Random(1)
    drawn = []
    for number in range(files):
        width, height = (rng.randint(side // 2, 3 * side // 2) for _ in range(2))
        dark, light = ([rng.randint(low, low + 127) for _ in "rgb"] for low in (0, 128))
        shades = Image.linear_gradient("L").resize((width, height))
        image = Image.composite(
            Image.new("RGB", shades.size, tuple(light)), Image.new("RGB", shades.size, tuple(dark)), shades
        )
        pen = ImageDraw.Draw(image)
        for _ in range(SHAPES):
            x, y, size = rng.randint(0, width), rng.randint(0, height), rng.randint(side // 50, side // 6)
            colour = tuple(rng.randint(0, 255) for _ in "rgb")
            pen.ellipse((x - size, y - size, x + size, y + size), fill=colour)
            pen.line((x, y, rng.randint(0, width), rng.randint(0, height)), fill=colour, width=3)
        file = folder / f"{number:03}.png"
        image.save(file, compress_level=1)
        drawn.append(file)
    return drawn


def made(folder: Path, looks: list[Any], each: Callable[..., Iterable[Any]]) -> tuple[list[Any], dict[str, bytes]]:
    """How each picture looks, and all thumbnails and sheets by name."""
    together = parts(sorted(folder.glob("*.png")))
    sheets = folder / "sheets"
    list(each(sheet, together, [sheets / f"sheet-{number:02}.png" for number in range(len(together))]))
    pictures = sorted([*(folder / "thumbnails").glob("*.png"), *sheets.glob("*.png")])
    return looks, {picture.name: picture.read_bytes() for picture in pictures}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--side", type=at_least(50), default=SIDE, help="pixels of each picture, about")
    parser.add_argument("--out", type=Path, help="a folder for the thumbnails and sheets that the cluster made")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "alone")
        folder.mkdir()
        files = draw_pictures(folder, given.files, given.side)
        right = compare(Job("examples.images.images:app", look, made), files, given.workers)
        if given.out:
            for kept in ("thumbnails", "sheets"):
                shutil.copytree(Path(name, "cluster", kept), given.out / kept, dirs_exist_ok=True)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
