"""The tasks of an image job: a thumbnail of each picture, how it looks, and sheets of many thumbnails.

A task may be run twice, where its worker dies with it: what it writes takes its place at once, and is the same again.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFilter, ImageStat

from examples.executions import began
from orchestrator import App

app = App()

SIDE = 160
"""Pixels of a thumbnail, at most."""
ACROSS = 5
"""Thumbnails in a row of a sheet."""


@dataclass(frozen=True)
class Look:
    """`colour`: the mean one, as #rrggbb; `edges`: how much of it is edges, from 0 to 1."""

    colour: str
    edges: float


@app.task(execution_timeout_s=60)
def look(file: Path) -> Look:
    """How a picture looks. Its thumbnail goes to `thumbnails`, beside it."""
    began(file)
    with Image.open(file) as picture:
        image = picture.convert("RGB")
    red, green, blue = (round(mean) for mean in ImageStat.Stat(image).mean)
    edges = ImageStat.Stat(image.convert("L").filter(ImageFilter.FIND_EDGES)).mean[0] / 255
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    save(image, thumbnail(file))
    return Look(f"#{red:02x}{green:02x}{blue:02x}", round(edges, 6))


@app.task
def sheet(files: list[Path], to: Path) -> None:
    """The thumbnails of several pictures, in rows."""
    image = Image.new("RGB", (ACROSS * SIDE, -(-len(files) // ACROSS) * SIDE), "white")
    for place, file in enumerate(files):
        with Image.open(thumbnail(file)) as one:
            image.paste(one, (place % ACROSS * SIDE, place // ACROSS * SIDE))
    save(image, to)


def thumbnail(file: Path) -> Path:
    return file.parent / "thumbnails" / file.name


def save(image: Image.Image, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    unfinished = to.with_suffix(f".{os.getpid()}")
    image.save(unfinished, "PNG")
    unfinished.replace(to)
