"""What a process is told while it runs, by the process that started it: lines of JSON on an inherited pipe."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any


def hear(descriptor: int, control: Callable[[list[dict[str, Any]]], None]) -> None:
    """Call `control` with all the lines that have come since the last call, at once with those that are there already,
    until the other end closes."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    rest = b""

    def readable() -> None:
        nonlocal rest
        try:
            chunk = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not chunk:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            return
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            control([json.loads(line) for line in lines])

    loop.add_reader(descriptor, readable)
    readable()
