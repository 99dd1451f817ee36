"""Answers that are waited for, and what is told of those that do not come."""

from __future__ import annotations

import asyncio
import time

from orchestrator.cluster.overdue import LATE_S, Overdue
from tests.cluster.streams import play


def test_what_is_overdue_is_told_in_order():
    """What was met is not; a key expected again after it was told is told again."""

    async def story() -> None:
        told: asyncio.Queue[list[str]] = asyncio.Queue()
        overdue: Overdue[str] = Overdue(0.05, told.put_nowait, 0.02)
        now = asyncio.get_running_loop().time()
        for one in "abc":
            overdue.expect(one, now)
        overdue.met("b")
        overdue.met("never expected")
        assert await told.get() == ["a", "c"]
        overdue.expect("a", asyncio.get_running_loop().time())
        assert await told.get() == ["a"]

    play(story)


def test_who_stood_still_waits_before_it_judges():
    """What comes with its waking up is in time."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        overdue: Overdue[str] = Overdue(0.1, told.extend, 0.05)
        overdue.expect("a", loop.time())
        overdue.expect("b", loop.time())
        time.sleep(0.1 + 2 * LATE_S)
        loop.call_later(0.01, overdue.met, "a")  # not read in the first turn
        while not told:
            await asyncio.sleep(0.01)
        assert told == ["b"]

    play(story)
