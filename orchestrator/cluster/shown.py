"""How clients, and what they hold of tasks, look at a prompt and in a notebook: short, as they are at the moment."""

from __future__ import annotations

import asyncio
import reprlib
from concurrent.futures import Future
from html import escape
from typing import Any

from orchestrator.cluster.app import TRACEBACK
from orchestrator.cluster.wire.progress import Progress
from orchestrator.cluster.wire.translate import Outcome
from orchestrator.core.model import TaskState

CHARACTERS = 100
"""Of a value; twice as many of anything."""

_values = reprlib.Repr()
_values.maxstring = _values.maxother = CHARACTERS


class Shown:
    """Of what `_facts` says, the parts that are not empty."""

    __slots__ = ()

    def _facts(self) -> dict[str, str]:
        """By name, as text, without asking anybody."""
        raise NotImplementedError

    def _told(self) -> dict[str, str]:
        return {name: _line(text) for name, text in self._facts().items() if text}

    def __repr__(self) -> str:
        return f"<{' '.join([type(self).__name__, *(f'{name}={text}' for name, text in self._told().items())])}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in self._told().items())
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


def facts_of(
    task_id: str | None, kind: str, progress: Progress | None, future: Future[Any] | asyncio.Future[Any]
) -> dict[str, str]:
    """Of a task and what its client waits for. `task_id`: None while it is not accepted."""
    facts = {"task": task_id or "", "kind": kind}
    if future.cancelled():
        return facts | {"state": "cancelled"}
    if not future.done():
        told = "" if progress is None else f"{progress.share:.0%} {progress.text}"
        return facts | {"state": "accepted" if task_id else "not accepted", "progress": told}
    error = future._exception  # exception() would count as somebody's having learnt of it
    if error is not None:
        words = _head(error.args[0]) if error.args else ""
        return facts | {"state": "failed", "error": f"{type(error).__name__}: {words}"}
    value = future.result()
    if not isinstance(value, Outcome):
        return facts | {"state": "completed", "value": _values.repr(value)}
    if value.state is TaskState.COMPLETED:
        return facts | {"state": "completed", "value": _values.repr(value.result)}
    return facts | {"state": value.state.name.lower(), "error": _head(value.error)}


def _head(error: object) -> str:
    """Without the traceback."""
    return str(error).partition(TRACEBACK)[0]


def _line(text: str) -> str:
    """On one line, not too long, and with nothing that a terminal would obey."""
    line = " ".join(text[: 10 * CHARACTERS].split())
    line = line if len(line) <= 2 * CHARACTERS else f"{line[: 2 * CHARACTERS]}..."
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)
