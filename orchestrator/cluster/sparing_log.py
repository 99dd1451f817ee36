"""Log lines that a peer can cause as often as it likes: a few of them are written, the others are counted."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

BURST, EVERY_S = 20, 5.0
ALL_BURST, ALL_EVERY_S = 1000, 0.5
SOURCES_MAX = 1000
EVERYBODY = "all of them"


class _Bucket:
    """`burst` lines at once, and one every `every_s` on the average."""

    def __init__(self, burst: int, every_s: float, now: float) -> None:
        self.burst, self.every_s = burst, every_s
        self.left_out = 0
        self._lines = float(burst)
        self._since = now

    def take(self, now: float) -> bool:
        self._lines = min(self.burst, self._lines + (now - self._since) / self.every_s)
        self._since = now
        if self._lines < 1:
            return False
        self._lines -= 1
        return True


class SparingLog:
    """For each source a few lines at once, then one now and then; the same, with larger numbers, for all sources
    together. How many were left out is said a little later. Of very many sources the least recent are forgotten."""

    def __init__(self, log: logging.Logger, loop: asyncio.AbstractEventLoop) -> None:
        self._log = log
        self._loop = loop
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._all = _Bucket(ALL_BURST, ALL_EVERY_S, loop.time())

    def write(self, level: int, source: str, text: str, *values: object, **about: object) -> None:
        """`about`: what the line is about, by field."""
        now = self._loop.time()
        bucket = self._bucket(source, now)
        if not bucket.take(now):
            self._leave_out(level, source, bucket)
        elif not self._all.take(now):
            self._leave_out(level, EVERYBODY, self._all)
        else:
            self._log.log(level, text, *values, extra=about)

    def warning(self, source: str, text: str, *values: object, **about: object) -> None:
        self.write(logging.WARNING, source, text, *values, **about)

    def _bucket(self, source: str, now: float) -> _Bucket:
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = _Bucket(BURST, EVERY_S, now)
            if len(self._buckets) > SOURCES_MAX:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket

    def _leave_out(self, level: int, source: str, bucket: _Bucket) -> None:
        if not bucket.left_out:
            self._loop.call_later(EVERY_S, self._tell, level, source, bucket)
        bucket.left_out += 1

    def _tell(self, level: int, source: str, bucket: _Bucket) -> None:
        self._log.log(level, "left out %d lines more about %s", bucket.left_out, source)
        bucket.left_out = 0
