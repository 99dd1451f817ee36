"""Whether the coordinator takes more tasks, and who waits until it does."""

from __future__ import annotations

import asyncio

from orchestrator.cluster.limits import Limits
from orchestrator.cluster.peers import ClientPeer
from orchestrator.cluster.repeats import Repeats
from orchestrator.core.coordinator import Coordinator


class Room:
    """`characters`: of the payloads of tasks that are not settled; its owner counts them."""

    def __init__(self, limits: Limits, core: Coordinator, repeats: Repeats) -> None:
        self.characters = 0
        self._limits = limits
        self._core = core
        self._repeats = repeats
        self._made = asyncio.Event()
        self.made = self._made.set  # there may be more of it
        self._turns = asyncio.Lock()

    @property
    def full(self) -> bool:
        limits = self._limits
        return self._unsettled >= limits.unsettled or self.characters >= limits.unsettled_characters

    @property
    def _unsettled(self) -> int:
        core = self._core
        return core.submitted - core.completed - core.failed + self._repeats.count

    async def wait_for(self, client: ClientPeer) -> int:
        """Wait until the coordinator, and what waits for this client, are below their limits: by how many tasks.
        Whoever asked first has the first turn."""
        while client.waiting >= self._limits.unsettled or client.owes_reading:
            await self._more()
        if self.full or self._turns.locked():
            async with self._turns:
                while self.full:
                    await self._more()
        return self._limits.unsettled - self._unsettled

    async def _more(self) -> None:
        self._made.clear()
        await self._made.wait()
