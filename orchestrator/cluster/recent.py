"""The groups of changes that a store holds beside its tasks: which they are, and what only they tell.

A task is in the groups of all its changes, and is to be written by itself once, as late as possible: groups leave from
the oldest on, and with each those tasks that came with it, as they are by then.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

Row = tuple[int, bool, float | None, bytes]
"""The place, whether there is a key, when it was settled, all of the task as JSON."""


class Group(NamedTuple):
    """`tasks`: how many of its tasks no group before it has; `settled_at`: when the first of them was settled."""

    number: int
    tasks: int
    size: int
    settled_at: float


class Oldest(NamedTuple):
    """`groups`: how many; `last`: the number of the last one; `rows`: their tasks, as they are now."""

    groups: int
    last: int
    size: int
    rows: list[Row]


class Recent:
    """The groups that are stored, and of each of their tasks how it is now, in the order in which they came."""

    def __init__(self) -> None:
        self.bytes = 0
        self.last = 0  # the number of the last group
        self._groups: deque[Group] = deque()
        self._rows: dict[int, Row] = {}

    def add(self, number: int, rows: Sequence[Row], size: int) -> None:
        before = len(self._rows)
        self._rows.update([(row[0], row) for row in rows])
        settled_at = min([row[2] for row in rows if row[2] is not None], default=math.inf)
        self._groups.append(Group(number, len(self._rows) - before, size, settled_at))
        self.bytes += size
        self.last = number

    def oldest(self, left_bytes: int) -> Oldest:
        """So many that the others take no more than that."""
        groups, left = 0, self.bytes
        for group in self._groups:
            if left <= left_bytes:
                break
            groups, left = groups + 1, left - group.size
        return self._first(groups)

    def settled_by(self, until: float) -> Oldest:
        """So many that of the others' tasks none was settled by then."""
        return self._first(
            max((at for at, group in enumerate(self._groups, 1) if group.settled_at <= until), default=0)
        )

    def _first(self, groups: int) -> Oldest:
        some = list(islice(self._groups, groups))
        rows = list(islice(self._rows.values(), sum(group.tasks for group in some)))
        return Oldest(groups, some[-1].number if some else 0, sum(group.size for group in some), rows)

    def drop(self, oldest: Oldest) -> None:
        for _ in range(oldest.groups):
            self._groups.popleft()
        for row in oldest.rows:
            del self._rows[row[0]]
        self.bytes -= oldest.size
