"""What the tasks of the examples note of themselves, so that whoever ran them sees which were run more than once."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path


def began(file: Path) -> None:
    """Note in `executions`, beside the file, that its task begins."""
    log = os.open(file.parent / "executions", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{file.name} {time.monotonic()}\n".encode())
    os.close(log)


def run_again(folder: Path, there: Mapping[str, float]) -> tuple[int, list[str]]:
    """How many executions began once more, and the files of those that began when their result was there.

    `there`: when it was, by the file's name, on the monotonic clock.
    """
    begun = [line.split() for line in (folder / "executions").read_text().splitlines()]
    times = Counter(name for name, _ in begun)
    return sum(times.values()) - len(times), [name for name, at in begun if float(at) > there[name]]
