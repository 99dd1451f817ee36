"""What is left of calls when all is closed."""

from __future__ import annotations

import asyncio
import time

import pytest

from orchestrator.cluster.wire import rpc


def test_tasks_that_end_within_some_turns_are_waited_for():
    """None is cancelled with its loop."""

    async def turns() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def story() -> None:
        left = asyncio.create_task(turns())
        await rpc.last_turns()
        assert left.done()
        assert not left.cancelled()

    asyncio.run(story())


def test_a_task_that_never_ends_holds_nobody_up(monkeypatch: pytest.MonkeyPatch):
    """It is cancelled with its loop, as any other."""
    monkeypatch.setattr(rpc, "LAST_TURNS_S", 0.05)

    async def story() -> None:
        left = asyncio.create_task(asyncio.Event().wait())
        begun = time.monotonic()
        await rpc.last_turns()
        assert time.monotonic() - begun < 20
        assert not left.done()

    asyncio.run(story())
