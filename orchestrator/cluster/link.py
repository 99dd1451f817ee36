"""A client's connection to its coordinator, and another one in its place when nothing comes by it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import grpc.aio

from orchestrator.cluster.wire import contract, rpc

SILENCE_S = 5.0
"""Of a stream by which a client waits for results, before it asks whether anybody is there."""
ANSWER_S = 2.0
CONNECTED_S = (0.001, 0.1)
CLOSING_S = 15.0
"""For what others have begun on the former connection: longer than their deadlines."""


class Link:
    """`channel`, and the services on it, as they are now; whoever uses them looks each time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._closing: set[asyncio.Task[None]] = set()
        self._use(rpc.channel(address))

    def _use(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.coordinator = rpc.Stub(channel, rpc.COORDINATOR)
        self.streams = rpc.Stub(channel, rpc.CLIENT_STREAM)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self.channel.close(None)

    async def connected(self) -> None:
        """Wait until it stands."""
        pause_s = CONNECTED_S[0]
        # Asked again and again: a watch of the channel may outlive the loop, and then disturbs the next one.
        while self.channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
            await asyncio.sleep(pause_s)
            pause_s = min(CONNECTED_S[1], 2 * pause_s)

    async def forsaken(self, silent_s: Callable[[], float]) -> str:
        """Until another connection is in the place of this one, because nothing came by it. `silent_s`: for how long
        somebody has waited for a word on it.

        Only if the coordinator answers on the new one, and then not on the old one, is the old one to blame, and not a
        coordinator that stands still.
        """
        while True:
            await asyncio.sleep(SILENCE_S / 2)
            if silent_s() < SILENCE_S or await _answers(self.coordinator, ANSWER_S):
                continue
            fresh = rpc.channel(self._address)
            try:
                coordinator = rpc.Stub(fresh, rpc.COORDINATOR)
                while silent_s() >= SILENCE_S and not await _answers(coordinator, ANSWER_S):
                    await asyncio.sleep(CONNECTED_S[1])
                if silent_s() >= SILENCE_S and not await _answers(self.coordinator, ANSWER_S):
                    former = self.channel
                    self._use(fresh)
                    closing = asyncio.create_task(_close(former))
                    self._closing.add(closing)
                    closing.add_done_callback(self._closing.discard)
                    return f"nothing came by the connection for {silent_s():.0f} s"
            finally:
                if fresh is not self.channel:
                    await fresh.close(None)


async def _close(former: grpc.aio.Channel) -> None:
    try:
        await former.close(CLOSING_S)
    finally:
        await former.close(None)


async def _answers(coordinator: rpc.Stub, within_s: float) -> bool:
    """Whether there is an answer, of any kind."""
    try:
        await coordinator.GetTaskStatus(contract.status_request(""), timeout=within_s)
    except grpc.aio.AioRpcError as error:
        return error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    return True
