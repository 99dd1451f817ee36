"""What tasks print: it goes to the worker's log, up to a limit for each task."""

from __future__ import annotations

import asyncio
import logging
import os

log = logging.getLogger("orchestrator.task")

PRINTED_BYTES = 1 << 16
"""What is shown of one task; the rest is read and dropped."""
_LINE_BYTES = 4096
_PIECE_BYTES, _PIPE_BYTES = 1 << 15, 1 << 16


class Output:
    """Of one subprocess. `theirs` is the end that it writes to, to be closed here once it has it."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self._readable)
        self._rest = b""
        self._whose = ""
        self._about: dict[str, object] = {}
        self._room = PRINTED_BYTES
        self._dropped = 0

    def began(self, whose: str, **about: object) -> None:
        """A task, from now on; `about`: which one, by field."""
        self._whose = whose
        self._about = about
        self._room = PRINTED_BYTES

    def opened(self) -> None:
        os.close(self.theirs)

    def close(self) -> None:
        self.drain()
        self._loop.remove_reader(self._ours)
        os.close(self._ours)
        if self._rest:
            self._tell(self._rest)
        self._tell_dropped()

    def drain(self) -> None:
        """Read what is there: it is of the task that has just ended. No more than a pipe holds: something that it has
        left behind may print for ever."""
        for _ in range(_PIPE_BYTES // _PIECE_BYTES):
            if not self._readable():
                return

    def _readable(self) -> bool:
        """Whether there was anything."""
        try:
            piece = os.read(self._ours, _PIECE_BYTES)
        except BlockingIOError:
            return False
        if not piece:
            self._loop.remove_reader(self._ours)
            return False
        shown = piece[: self._room]
        self._room -= len(shown)
        if len(shown) < len(piece):
            if not self._dropped:
                told = "%s: prints more than %d KiB: the rest is dropped"
                log.warning(told, self._whose, PRINTED_BYTES >> 10, extra=self._about)
            self._dropped += len(piece) - len(shown)
        elif self._dropped:
            self._tell_dropped()
        *lines, self._rest = (self._rest + shown).split(b"\n")
        for line in lines:
            self._tell(line)
        if len(self._rest) > _LINE_BYTES:
            self._tell(self._rest)
            self._rest = b""
        return True

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip().expandtabs()
        if text:
            shown = "".join(one if one.isprintable() else "?" for one in text[:_LINE_BYTES])
            log.info("%s: %s", self._whose, shown, extra=self._about)

    def _tell_dropped(self) -> None:
        if self._dropped:
            line = "%s: %d bytes of what was printed were dropped"
            log.warning(line, self._whose, self._dropped, extra=self._about)
            self._dropped = 0
