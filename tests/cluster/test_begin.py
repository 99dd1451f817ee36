"""A coroutine that begins at once, and whose rest is a task."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.cluster.wire.rpc import begin


def test_it_runs_until_its_first_wait_before_anything_else():
    """And its rest as any task: the waits in order, then its value."""
    seen: list[str] = []

    async def story() -> None:
        first, second = asyncio.Event(), asyncio.Event()

        async def steps() -> str:
            seen.append("begun")
            await first.wait()
            seen.append("after one")
            await second.wait()
            return "value"

        task = begin(steps())
        assert seen == ["begun"]
        first.set()
        await asyncio.sleep(0)
        second.set()
        assert await task == "value"
        assert seen == ["begun", "after one"]

    asyncio.run(story())


def test_one_that_never_waits_has_its_value_or_its_error():
    async def ends() -> int:
        return 7

    async def fails() -> None:
        raise ValueError("at once")

    async def story() -> None:
        assert await begin(ends()) == 7
        with pytest.raises(ValueError, match="at once"):
            await begin(fails())

    asyncio.run(story())


def test_what_it_waits_for_may_fail_and_it_may_be_cancelled():
    """The error, or the cancellation, comes up where it waits."""
    seen: list[type[BaseException]] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        broken, never = loop.create_future(), loop.create_future()

        async def waits(future: asyncio.Future[None]) -> str:
            try:
                await future
            except (ValueError, asyncio.CancelledError) as error:
                seen.append(type(error))
                raise
            return ""

        failing, cancelled = begin(waits(broken)), begin(waits(never))
        broken.set_exception(ValueError("later"))
        with pytest.raises(ValueError, match="later"):
            await failing
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert never.cancelled()

    asyncio.run(story())
    assert seen == [ValueError, asyncio.CancelledError]
