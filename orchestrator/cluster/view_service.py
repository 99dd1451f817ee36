"""The service for those who look at the cluster, and for who has a worker drain."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from orchestrator.cluster.answers import Unread
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.looking import Looking
from orchestrator.cluster.newcomers import the_request
from orchestrator.cluster.peers import Refused, StreamedWorker
from orchestrator.cluster.service import Code, Context, Service
from orchestrator.cluster.wire import watching
from orchestrator.cluster.wire.frames import Malformed, sound
from orchestrator.core.model import WorkerState

INTERVAL_S = (0.1, 3600.0)
"""Between two snapshots for one who watches, at least and at most."""
NAMED = 5
"""Workers that are named to who asks for one that is not here."""


class ViewService(Service):
    """ClusterView. Nothing that is asked here changes a decision, but for a drain, which is an input like any other."""

    def __init__(self, live: LiveCoordinator, unread: Unread) -> None:
        super().__init__(live, unread)
        self._looking = Looking(live)
        self._watchers = 0

    async def GetWorkers(self, request: Any, context: Context) -> Any:
        async with self._refusals(context):
            return await self._answer(self._looking.workers(*watching.wanted_workers(sound(request))), context)

    async def GetTasks(self, request: Any, context: Context) -> Any:
        async with self._refusals(context):
            return await self._answer(self._looking.tasks(*watching.wanted_tasks(sound(request))), context)

    async def GetTask(self, request: Any, context: Context) -> Any:
        async with self._refusals(context):
            return await self._answer(self._looking.task(sound(request).task_id), context)

    async def GetQueue(self, request: Any, context: Context) -> Any:
        async with self._refusals(context):
            sound(request)
            return await self._answer(self._looking.queue(), context)

    async def Watch(self, requests: AsyncIterator[Any], context: Context) -> None:
        async with self._refusals(context):
            if self._watchers >= self._live.limits.watchers:
                raise Refused(Code.RESOURCE_EXHAUSTED, f"{self._watchers} others watch: no more are told")
            self._watchers += 1
            try:
                wanted_s = (await the_request(requests)).interval_s
                if not 0 <= wanted_s < math.inf:
                    raise Refused(Code.INVALID_ARGUMENT, f"an interval is a number of seconds, not {wanted_s:g}")
                await self._tell(min(max(wanted_s, INTERVAL_S[0]), INTERVAL_S[1]), context)
            finally:
                self._watchers -= 1

    async def _tell(self, interval_s: float, context: Context) -> None:
        """For ever. One who does not read is told no more until it does, and nothing gathers for it."""
        now = self._live.now
        while True:
            began = now()
            self._live.require_running()
            await context.write(watching.message_of(await self._looking.snapshot()))
            await asyncio.sleep(max(0.0, interval_s - (now() - began)))

    async def Drain(self, request: Any, context: Context) -> Any:
        async with self._refusals(context):
            self._live.require_running()
            incarnation = self._drain(sound(request).worker)
            await self._live.may_be_told(context.peer())
            return watching.drain_answer(incarnation)

    def _drain(self, name: str) -> str:
        """Its incarnation. Raises Refused for a worker that can't be told."""
        live = self._live
        worker = live.core.worker(name)
        if worker is None:
            here = [each.id for each in live.core.workers() if each.state is not WorkerState.LEFT]
            named = f"only {', '.join(here[:NAMED])}{', ...' if len(here) > NAMED else ''}" if here else "none is here"
            raise Refused(Code.NOT_FOUND, f"no worker {name[:80]}, {named}")
        peer = live.workers.get(name)
        if worker.state is WorkerState.LEFT:
            raise Refused(Code.FAILED_PRECONDITION, f"worker {name} has left already")
        if worker.draining:
            raise Refused(Code.FAILED_PRECONDITION, f"worker {name} drains already")
        if not worker.incarnation:
            reason = f"worker {name} speaks the unary contract, by which it can't be told: end its process instead"
            raise Refused(Code.FAILED_PRECONDITION, reason)
        if not isinstance(peer, StreamedWorker):
            state = worker.state.name.lower()
            raise Refused(Code.FAILED_PRECONDITION, f"worker {name} is not connected ({state}): it can't be told")
        live.core.drain(name, live.now())
        peer.drain()
        return worker.incarnation

    async def _answer(self, look: Awaitable[tuple[Any, ...]], context: Context) -> Any:
        """Once what it tells is stored."""
        self._live.require_running()
        message = watching.message_of(await look)
        self._take_room(message.ByteSize(), context)
        await self._live.may_be_told(context.peer())
        return message

    @contextlib.asynccontextmanager
    async def _refusals(self, context: Context) -> AsyncIterator[None]:
        """A question that has no answer is nobody's fault; one that makes no sense is told in the log, too."""
        try:
            yield
        except Malformed as malformed:
            await self._abort(context, malformed)
        except Refused as refused:
            await context.abort(refused.code, str(refused))
