"""The tasks of a text job: what the words of many files are, and how often each pair of them stands together."""

import os
import re
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from orchestrator import App

app = App()


@app.task(execution_timeout_s=60)
def count(file: Path) -> dict[str, int]:
    """The pairs of words of one file. Notes in `executions`, beside it, when it begins."""
    line = f"{file.name} {time.monotonic()}\n"
    log = os.open(file.parent / "executions", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line.encode())
    os.close(log)
    words = re.findall(r"[a-z]+", file.read_text().lower())
    pairs = Counter(f"{one} {other}" for one, other in pairwise(words))
    return dict(pairs.most_common(200))


@app.task
def add(counts: list[dict[str, int]]) -> dict[str, int]:
    """Of several files together."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)
