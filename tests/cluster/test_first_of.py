"""Parts that run together until one of them ends."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.cluster.wire.rpc import first_of


async def ends(value: str) -> str:
    return value


async def fails(reason: str) -> str:
    raise ValueError(reason)


def test_of_parts_that_end_at_once_the_first_counts(caplog: pytest.LogCaptureFixture):
    """In the order of the arguments, not of a set; an error of another one is logged."""
    for _ in range(50):
        assert asyncio.run(first_of(ends("a"), ends("b"), ends("c"))) == "a"
    with pytest.raises(ValueError, match="first"):
        asyncio.run(first_of(fails("first"), ends("b")))
    assert not caplog.records
    assert asyncio.run(first_of(ends("a"), fails("second"))) == "a"
    assert [record.message for record in caplog.records] == ["beside what ended first: ValueError: second"]


def test_the_others_are_cancelled_and_awaited():
    """Whatever they do to clean up is done on return, also where the whole is cancelled."""
    cleaned: list[str] = []

    async def waits(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(name)

    async def story() -> None:
        assert await first_of(waits("a"), ends("b"), waits("c")) == "b"
        assert cleaned == ["a", "c"]
        whole = asyncio.create_task(first_of(waits("d"), waits("e")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
        assert cleaned == ["a", "c", "d", "e"]

    asyncio.run(story())
