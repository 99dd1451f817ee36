"""Lines that peers cause: a few are written, the others are counted."""

from __future__ import annotations

import asyncio
import logging

import pytest

from orchestrator.cluster.sparing_log import ALL_BURST, ALL_EVERY_S, BURST, EVERY_S, SOURCES_MAX, SparingLog

log = logging.getLogger("sparing")


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time is moved, and whose timers ring when they are passed."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds
        self.run_until_complete(asyncio.sleep(0))
        self.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def clock():
    loop = Clock()
    yield loop
    loop.close()


def test_a_source_has_a_few_lines_and_the_others_are_counted(clock: Clock, caplog: pytest.LogCaptureFixture):
    """In a line of their own; another source has its own lines."""
    lines = SparingLog(log, clock)
    for _ in range(10 * BURST):
        lines.warning("a", "a line of %s", "a")
    lines.warning("b", "a line of %s", "b")
    assert caplog.messages == ["a line of a"] * BURST + ["a line of b"]
    clock.move(EVERY_S)
    assert caplog.messages[-1] == f"left out {9 * BURST} lines more about a"
    lines.warning("a", "again")
    assert caplog.messages[-1] == "again"


def test_all_sources_together_have_a_limit_too(clock: Clock, caplog: pytest.LogCaptureFixture):
    """Names are made up easily. Later there are lines again."""
    lines = SparingLog(log, clock)
    for number in range(2 * ALL_BURST):
        lines.warning(f"s{number}", "a line")
    assert len(caplog.messages) == ALL_BURST
    clock.move(EVERY_S)
    assert caplog.messages[ALL_BURST:] == [f"left out {ALL_BURST} lines more about all of them"]
    for number in range(2 * ALL_BURST):
        lines.warning(f"t{number}", "a line")
    assert len(caplog.messages) == ALL_BURST + 1 + EVERY_S / ALL_EVERY_S


def test_sources_are_forgotten_when_there_are_very_many(clock: Clock):
    """The least recent."""
    lines = SparingLog(log, clock)
    for number in range(2 * SOURCES_MAX):
        lines.warning(f"s{number}", "a line")
        lines.warning("always", "a line")
    assert len(lines._buckets) == SOURCES_MAX
    assert "always" in lines._buckets
