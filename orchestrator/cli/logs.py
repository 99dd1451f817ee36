"""How a process of the cluster logs: key=value for a person at a terminal, a JSON object a line for everybody else.

The cluster writes sentences by the standard library's `logging`, with what a line is about beside them (`extra`). Here
they, and the lines of asyncio and gRPC, get one form.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

ABOUT = ("worker", "task", "attempt", "term")
"""What a line may be about, by the name of the field."""


class LogFormat(StrEnum):
    """auto: text at a terminal, json elsewhere."""

    auto = "auto"
    text = "text"
    json = "json"


LogFormatOption = Annotated[
    LogFormat,
    typer.Option("--log-format", help="How stderr is written; auto: text at a terminal, JSON lines elsewhere."),
]


def chosen(given: LogFormat) -> LogFormat:
    """Text or JSON."""
    if given is not LogFormat.auto:
        return given
    return LogFormat.text if _at_terminal() else LogFormat.json


def begin_logging(quiet: bool, given: LogFormat) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(chosen(given)))
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler])


def _at_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _formatter(form: LogFormat) -> logging.Formatter:
    with _without_rich():
        import structlog
    add: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(ABOUT),
    ]
    if form is LogFormat.text:
        add.append(structlog.processors.TimeStamper("%Y-%m-%d %H:%M:%S", utc=False))
        colors = _at_terminal() and not os.environ.get("NO_COLOR")
        renderer: Any = structlog.dev.ConsoleRenderer(
            colors=colors, pad_event_to=0, pad_level=False, exception_formatter=structlog.dev.plain_traceback
        )
        render = [renderer]
    else:
        add.append(structlog.processors.TimeStamper("iso"))
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=add, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
    )


@contextmanager
def _without_rich() -> Iterator[None]:
    """Where it is there, structlog would load it, for tracebacks that are not printed here: three quarters of what
    structlog takes, at each worker's start."""
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment]  # for imports: there is none
    try:
        yield
    finally:
        if hidden:
            del sys.modules["rich"]
