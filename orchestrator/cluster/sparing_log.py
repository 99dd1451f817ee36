"""Log lines that a peer can cause as often as it likes: a few of them are written, the others are counted."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass

BURST = 20
EVERY_S = 5.0
SOURCES_MAX = 1000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    since: float
    left_out: int = 0


class SparingLog:
    """For each source `burst` lines at once, and one every `every_s` on the average. How many were left out is said
    after `every_s`. Sources are forgotten when there are too many, the one first that was heard least lately."""

    def __init__(
        self, log: logging.Logger, loop: asyncio.AbstractEventLoop, burst: int = BURST, every_s: float = EVERY_S
    ) -> None:
        self._log = log
        self._loop = loop
        self._burst = burst
        self._every_s = every_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def write(self, level: int, source: str, text: str, *values: object) -> None:
        bucket = self._bucket(source, self._loop.time())
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            self._log.log(level, text, *values)
            return
        if not bucket.left_out:
            self._loop.call_later(self._every_s, self._tell, level, source, bucket)
        bucket.left_out += 1

    def warning(self, source: str, text: str, *values: object) -> None:
        self.write(logging.WARNING, source, text, *values)

    def _bucket(self, source: str, now: float) -> _Bucket:
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = _Bucket(self._burst, now)
            if len(self._buckets) > SOURCES_MAX:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.since) / self._every_s)
        bucket.since = now
        return bucket

    def _tell(self, level: int, source: str, bucket: _Bucket) -> None:
        self._log.log(level, "left out %d lines more about %s", bucket.left_out, source)
        bucket.left_out = 0
