"""The tasks of a text job: what the words of many files are, and how often each pair of them stands together."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from examples.executions import began
from orchestrator import App

app = App()


@app.task(execution_timeout_s=60)
def count(file: Path) -> dict[str, int]:
    """The pairs of words of one file."""
    began(file)
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
