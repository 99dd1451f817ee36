"""Standard streams that are closed, that nobody reads any more, or that a full disk keeps from taking more.

No command need think of them. Where stdout takes no more, the command ends: in silence where its reader has gone, with
a sentence otherwise. What stderr does not take is left out, and the command goes on.
"""

from __future__ import annotations

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

BROKEN_PIPE = 128 + 13
"""The exit code of a command that SIGPIPE ends."""


def guard() -> None:
    """From now on it is so for this process."""
    for descriptor in range(3):
        _stand_in(descriptor)
    sys.stdout = _text(_Out(1, "w", closefd=False), sys.stdout, buffered=True)
    sys.stderr = _text(_Err(2, "w", closefd=False), sys.stderr, buffered=False)


class _Out(FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # for what waits in buffers
            if not isinstance(error, BrokenPipeError):
                print(f"cannot write to stdout: {error.strerror}", file=sys.stderr)
                sys.exit(1)
            sys.exit(BROKEN_PIPE)


class _Err(FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _stand_in(descriptor: int) -> None:
    """Where it is closed: otherwise the next file that is opened would get its number, and what is meant for it."""
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)


def _text(raw: FileIO, former: Any, buffered: bool) -> TextIOWrapper:
    """What cannot be encoded is escaped. `former`: the stream in whose place it comes; None where that was closed."""
    unbuffered = getattr(former, "write_through", False)  # python -u
    return TextIOWrapper(
        raw if unbuffered else BufferedWriter(raw),
        encoding=getattr(former, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=not buffered or getattr(former, "line_buffering", False),
        write_through=unbuffered,
    )
