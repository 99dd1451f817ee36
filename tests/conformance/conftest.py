"""The worlds that the kit is tried on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite(*(f"tests.conformance.{name}" for name in ("cluster", "behaviours", "limits")))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """What a live coordinator left on it ends with it."""
    with asyncio.Runner() as runner:
        yield runner.get_loop()
