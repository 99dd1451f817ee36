"""Reading the log of a cluster whose processes write JSON, as they do where stderr is no terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def lines(log: Path) -> list[dict[str, Any]]:
    """Every whole line by field. What no logger wrote, such as an interpreter, is an event without a level."""
    whole = log.read_text().split("\n")[:-1]
    return [json.loads(line) if line.startswith("{") else {"event": line} for line in whole]
