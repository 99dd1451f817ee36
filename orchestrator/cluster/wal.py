"""The write-ahead log of a store's database: how much of it is whole.

SQLite reads it up to the first frame that is not as it was written, and says nothing of what follows. After a crash
that is right: only the last group can be torn, for each is on the disk before the next one is begun, and nobody was
told of it. But whole groups behind such a frame mean that the disk has changed what was acknowledged.

The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
MAGIC = 0x377F0682
"""Of a log whose checksums read it as little-endian words; one more: big-endian ones."""
WORD = 0xFFFFFFFF
Sums = tuple[int, int]


class Log(NamedTuple):
    """`end`: behind the last whole group; `torn`: the bytes behind it that were begun, and are not whole.

    `damage`: what is wrong if that can't be the trace of a crash, and where; empty for nothing.
    """

    end: int
    torn: int
    damage: str = ""


def log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def examine(database: Path) -> Log:
    """What its log holds. One that is not there is empty. Raises OSError."""
    file = log_of(database)
    if not file.exists():
        return Log(0, 0)
    found = _examined(file)
    if found.end and not (database.exists() and database.stat().st_size):
        return found._replace(damage=f"{database} is empty, but {file} is not")  # which SQLite would delete
    return found


def _examined(file: Path) -> Log:
    data = file.read_bytes()
    if len(data) <= HEADER_BYTES:
        return Log(0, len(data) % HEADER_BYTES)
    magic, _, page_bytes, _, *salts, sum_1, sum_2 = struct.unpack(">8I", data[:HEADER_BYTES])
    order = ">" if magic & 1 else "<"
    sums = _added((0, 0), data[: HEADER_BYTES - 8], order)
    if magic & ~1 != MAGIC or sums != (sum_1, sum_2) or not 512 <= page_bytes <= 65536:
        return Log(0, 0, f"the beginning of {file} is not as it was written")
    frame_bytes = FRAME_HEADER_BYTES + page_bytes
    at = end = HEADER_BYTES
    while at + frame_bytes <= len(data):
        _, pages, *own = struct.unpack(">6I", data[at : at + FRAME_HEADER_BYTES])
        sums = _added(sums, data[at : at + 8], order)
        sums = _added(sums, data[at + FRAME_HEADER_BYTES : at + frame_bytes], order)
        if own != [*salts, *sums]:
            break
        at += frame_bytes
        if pages:
            end = at
    behind = list(_frames(data, end, frame_bytes, struct.pack(">2I", *salts)))
    if not behind:
        return Log(end, 0)
    last = min(len(data), behind[-1].at + frame_bytes)
    if _are_groups(behind):
        lost = f"and behind it, up to byte {last}, is what was acknowledged"
        return Log(end, 0, f"byte {at} of {file} begins a page that is not as it was written, {lost}")
    return Log(end, last - end)


class _Frame(NamedTuple):
    at: int
    page: int
    ends_group: bool


def _frames(data: bytes, at: int, frame_bytes: int, salts: bytes) -> Iterator[_Frame]:
    """What there is of this log, whole or not, its page 0 where it is not known. What an earlier log has left has other
    salts."""
    while at < len(data):
        header = data[at : at + FRAME_HEADER_BYTES]
        own = header[8:16]
        if salts.startswith(own) or not any(own):
            yield _Frame(at, int.from_bytes(header[:4], "big"), any(header[4:8]))
        at += frame_bytes


def _are_groups(frames: Sequence[_Frame]) -> bool:
    """Whether they are more than one. The pages of a group are in order, each once, for the store lets none be written
    before."""
    pages = [frame.page for frame in frames if frame.page]
    return sum(frame.ends_group for frame in frames) > 1 or any(b <= a for a, b in pairwise(pages))


def _added(sums: Sums, data: bytes, order: str) -> Sums:
    """The sums with that data behind. For each pair of words SQLite does `one += even + two; two += odd + one`, which
    is linear: so each word counts with a weight."""
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    one, two = (
        of_one * sums[0] + of_two * sums[1] + sum(map(operator.mul, weights, words))
        for weights, of_one, of_two in _weights(len(words))
    )
    return one & WORD, two & WORD


@cache
def _weights(words: int) -> list[tuple[list[int], int, int]]:
    """For either sum: the weights of so many words, and those of the sums before them."""
    found = []
    for of_one, of_two in ((1, 0), (0, 1)):
        weights: list[int] = []
        for _ in range(words // 2):
            weights += (of_two, of_one + of_two & WORD)
            of_one, of_two = of_one + of_two & WORD, of_one + 2 * of_two & WORD
        found.append((weights[::-1], of_one, of_two))
    return found
