"""Tasks of a user, as users write them."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pydantic

from orchestrator import App, current_task

app = App()


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Order(pydantic.BaseModel):
    number: int
    at: datetime.datetime
    points: list[Point] = []


@app.task
def square(number: int) -> int:
    return number * number


@app.task
async def add(one: int, other: int = 1) -> int:
    await asyncio.sleep(0)
    return one + other


@app.task
def turned(raw: bytes) -> bytes:
    return raw[::-1]


@app.task
def moved(order: Order, *by: Point, factor: float = 1.0) -> Order:
    moved = [Point(point.x + factor * d.x, point.y + factor * d.y) for point, d in zip(order.points, by, strict=True)]
    return order.model_copy(update={"points": moved})


@app.task
def anything(value, /, *more, **named):
    return [value, list(more), named]


@app.task
def longest(texts: Sequence[str], *, at_least: int = 0) -> str | None:
    return max((text for text in texts if len(text) >= at_least), key=len, default=None)


@app.task(execution_timeout_s=60)
def self_description() -> tuple[str, int, float]:
    task = current_task()
    assert task.deadline is not None
    return task.id, task.attempt, task.left_s


@app.task(name="of-another-name")
async def named() -> str:
    return current_task().kind


@app.task
async def waits(folder: Path, name: str, seconds: float) -> str:
    (folder / name).touch()
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        (folder / f"{name} was cancelled").touch()
        raise
    return name


@app.task
def naps(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task
def where() -> str:
    """Which process this is, and by which worker it was begun."""
    return f"{os.getppid()}-{os.getpid()}"


@app.task
async def where_async() -> str:
    return f"{os.getppid()}-{os.getpid()}"


@app.task
def tells(until: Path) -> str:
    """How far it is, until the file is there."""
    current_task().progress(0.25)
    current_task().progress(0.5, "half of it")
    while not until.exists():
        time.sleep(0.01)
    return "done"


@app.task
async def tells_async(until: Path) -> str:
    await asyncio.to_thread(current_task().progress, 0.5, "half of it")
    while not until.exists():
        await asyncio.sleep(0.01)
    return "done"


@app.task(requires={"gpu": "a100"})
def on_a_gpu() -> int:
    return 1


@app.task
def fails(text: str) -> None:
    raise ValueError(text)
